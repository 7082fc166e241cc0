"""Result of an export: the folder, its files with their checks, and the origin of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodistill.delivery.export.checks import Checked, refusals
from autodistill.delivery.export.weights import Source


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        folder: the exported folder.
        trial: number of the trial.
        student: architecture of the student.
        accuracy: accuracy of the network in memory on the validation images; for a variant, that of the network from
            which its file was made.
        images: number of validation images.
        checked: one entry for each requested format, in the requested order.
        source: training that the weights come from.
        variant: form of the student that was exported.
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
        """Reasons for missing formats, one line each; empty if none is missing."""
        return refusals(self.checked)

    def to_json(self) -> dict[str, Any]:
        """Return the stable format of ``export --json``."""
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
