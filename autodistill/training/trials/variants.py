"""Precision variants of a trained student: the same weights in another form, measured separately.

``int8`` is the student's ONNX file with eight-bit weights and activations; the ranges are fixed on training images.
Its accuracy on the validation images, its size and its latency are measured on the file, which is stored with the
trial. Size and latency depend on the architecture only, so they are equal for all trials with that architecture.
Nothing is retrained. If a student cannot be written in a form, the reason is stored instead of figures.

Parameters, MACs and activations depend on the architecture only and hold for every form. Peak memory is counted in
fp32 for every form, which is more than an eight-bit runtime needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autodistill.core.errors import InfeasibleError, UserCodeError
from autodistill.core.records import LATENCY, Params
from autodistill.core.scratch import scratch_folder
from autodistill.training.data.datasets import ImageData
from autodistill.training.deployed.onnx_files import export_onnx, run_onnx
from autodistill.training.deployed.quantize import quantize_int8
from autodistill.training.loop.trainer import scores
from autodistill.training.students.student_input import Images, StudentInput
from autodistill.training.survey.student_costs import StudentCosts

CALIBRATION = 256
"""Number of training images from which the ranges of the activations are computed."""

_SIZES = ("bytes", "onnx_bytes")


@dataclass(frozen=True)
class VariantWork:
    """Writes and measures the variants of a study's students.

    Attributes:
        data: images for calibration and accuracy.
        input: side and normalization of the student's input.
        names: variants to measure; ``fp32`` is the student itself and is skipped.
        costs: source of latencies, measured once per architecture.
        own: measures of the study's own, name to ``module:function``.
    """

    data: ImageData
    input: StudentInput
    names: tuple[str, ...]
    costs: StudentCosts
    own: Mapping[str, str] = field(default_factory=dict)

    def of(
        self,
        student: Params,
        model: nn.Module,
        folder: Path,
        known: Mapping[str, float],
        teacher: Tensor | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Map each variant to ``{"values": …}``, or to ``{"reason": …}`` if it could not be written or measured.

        ``"noisy": True`` is added where the latency among the values was too noisy to settle.

        Args:
            student: architecture of the student.
            model: the trained student, on any device; it is not changed.
            folder: folder for the files of the variants.
            known: known costs of the student; a variant gets figures of the same names.
            teacher: teacher logits of the validation images, for the agreement.
        """
        found: dict[str, dict[str, Any]] = {}
        for name in self.names:
            if name == "fp32":
                continue
            try:
                path = self._write(model, folder / f"{name}.onnx")
                costs, noisy = self._costs(student, name, path, known)
                found[name] = {"values": {**self._trained(path, teacher), **costs}}
                if noisy:
                    found[name]["noisy"] = True
            except (InfeasibleError, UserCodeError) as error:
                found[name] = {"reason": str(error)}
            except Exception as error:  # a failed variant must not fail the trained student
                found[name] = {"reason": f"{type(error).__name__}: {error}"}
        return found

    def _write(self, model: nn.Module, path: Path) -> Path:
        data = self.data
        with scratch_folder("variant") as scratch:
            source = Path(scratch) / "fp32.onnx"
            export_onnx(model, source, image_size=self.input.image_size, channels=data.channels)
            return quantize_int8(source, path, calibration=calibration_images(data, self.input))

    def _trained(self, path: Path, teacher: Tensor | None) -> dict[str, float]:
        val = self.data.val
        logits = torch.from_numpy(run_onnx(path, self.input.of_images(val.images)))
        return scores(logits, torch.from_numpy(val.labels), teacher, self.own)

    def _costs(
        self, student: Params, name: str, path: Path, known: Mapping[str, float]
    ) -> tuple[dict[str, float], bool]:
        """Return the known costs of a form, and whether its latency was too noisy to settle."""
        noisy = False
        costs = {**known, **{name: float(path.stat().st_size) for name in _SIZES if name in known}}
        if LATENCY in known:
            measured = self.costs.of_form(student, name, path)
            if measured is None:
                raise InfeasibleError(
                    "a latency table has no value for this form; use a command or this machine as target."
                )
            costs[LATENCY], noisy = measured
        return costs, noisy


def calibration_images(data: ImageData, given: StudentInput, count: int = CALIBRATION) -> Images:
    """Return evenly spaced training images as a student's input, so that a set sorted by class gives all classes."""
    images = data.train.images
    rows: Sequence[int] = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int).tolist()
    return given.of_images(images[rows])
