"""What an export made, as a value: the folder, its files with their checks, and the training that they are from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodistill.delivery.export.checks import Checked, refusals
from autodistill.delivery.export.weights import Source


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        folder: where it lies.
        trial: number of the trial.
        student: its architecture.
        accuracy: of the network in memory on the validation images; ``images`` of them. Of a variant, the network that
            its file was made from.
        checked: one entry for each format that was asked for, in that order.
        source: the training that the weights are from.
        variant: the form of the student that was exported.
    """

    folder: Path
    trial: int
    student: Mapping[str, Any]
    accuracy: float
    images: int
    checked: tuple[Checked, ...]
    source: Source
    variant: str = "fp32"

    @property
    def refused(self) -> str:
        """Why formats are missing, one line each; empty where none is."""
        return refusals(self.checked)

    def to_json(self) -> dict[str, Any]:
        """The stable form of ``export --json``."""
        return {
            "trial": self.trial,
            "variant": self.variant,
            "folder": str(self.folder),
            "student": dict(self.student),
            "accuracy": self.accuracy,
            "validation_images": self.images,
            "weights": self.source.to_json(),
            "files": [one.to_json() for one in self.checked],
        }
