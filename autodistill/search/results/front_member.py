"""Members of a front: trials that can be loaded and exported, as ``front.pick`` and ``front.knee`` return them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import UsageError
from autodistill.core.records import TrialRecord

if TYPE_CHECKING:
    from torch import nn

    from autodistill.delivery.export.exported import Exported


@dataclass(frozen=True)
class FrontMember(TrialRecord):
    """A trial record with the folder of its study.

    Attributes:
        directory: folder of the study; ``None`` for a study in memory, which keeps no networks.
        picked: how the verification affected its being picked, as a sentence; empty if nothing is verified.
    """

    directory: Path | None = None
    picked: str = ""

    @staticmethod
    def of(trial: TrialRecord, directory: Path | None) -> FrontMember:
        """Build the member for a record."""
        return FrontMember(**{one.name: getattr(trial, one.name) for one in fields(TrialRecord)}, directory=directory)

    def load(self) -> nn.Module:
        """Load the trained network, in eval mode, on the CPU; it takes normalised images.

        Raises:
            UsageError: the study is in memory, or this is a variant, which is a file and no torch network.
            StoreError: the trial has no finished student.
        """
        from autodistill.delivery.export.loading import load_trial

        folder = self._folder()
        if self.variant != "fp32":
            raise UsageError(
                f"trial {self.number} was taken in its {self.variant} form, which is an ONNX file and no torch "
                "network; export(OUT) ships that file with a program that runs it. For the network that it was made "
                "from (fp32), take it from front.trained(), or call "
                f"autodistill.delivery.export.loading.load_trial({str(folder)!r}, {self.number})."
            )
        return load_trial(folder, self.number)

    def export(self, out: str | Path, *, formats: str | Sequence[str] | None = None, **options: Any) -> Exported:
        """Write files for other programs into the folder ``out``; see ``autodistill.delivery.export.write.export``.

        Args:
            out: folder to create.
            formats: names of formats; ``safetensors`` and ``onnx`` if omitted. For an int8 form, the measured file is
                exported as ``onnx-int8``.
            options: ``weights``, ``max_drop``, ``latency``, ``data`` and ``progress`` of ``export``.

        Raises:
            UsageError: the study is in memory, or a format does not exist or cannot hold this form.
            StoreError: the trial has no finished student.
        """
        from autodistill.delivery.export.write import export

        return export(self._folder(), self, out, formats=formats or None, **options)

    def to_json(self) -> dict[str, Any]:
        """Return plain values as for every record, without the folder and without ``picked``."""
        out = super().to_json()
        del out["directory"], out["picked"]
        return out

    def columns(self) -> dict[str, Any]:
        """Return a table row: number, objectives, then ``student.*``, ``distillation.*``, ``train.*``."""
        row: dict[str, Any] = {"number": self.number, "variant": self.variant, **self.values}
        for section in ("student", "distillation", "train"):
            row.update({f"{section}.{key}": value for key, value in getattr(self, section).items()})
        return {**row, "epochs": self.epochs, "seconds": self.seconds}

    def _folder(self) -> Path:
        if self.directory is None:
            raise UsageError("this study has no folder, so its networks were not kept; give directory= to keep them.")
        return self.directory
