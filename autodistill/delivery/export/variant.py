"""Export of a variant that the search measured: the same file is copied, if it still has the measured accuracy.

A front with int8 forms (``variants: [fp32, int8]``) has members that are files for ONNX Runtime. Their figures hold
only for the file stored with the trial, not for the network it was made from nor for a newly quantized file.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import StoreError, UsageError
from autodistill.core.records import TrialRecord
from autodistill.delivery.export.formats import formats as known_formats
from autodistill.delivery.export.formats import parse_formats

if TYPE_CHECKING:
    from autodistill.delivery.export.checks import Checked, Validation

DEFAULT_FORMATS = ("safetensors", "onnx")
_OWN_FORMAT = {"int8": "onnx-int8"}
_SIZES = ("onnx_bytes", "bytes")


def formats_for(trial: TrialRecord, requested: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the formats in which a trial is exported, after checking that they fit its variant.

    Args:
        trial: record of the trial as trained (fp32), or of one of its variants.
        requested: names of formats. ``None`` means ``safetensors`` and ``onnx``, or for a variant its own format; for a
            variant, ``all`` means its own format too.

    Raises:
        UnknownNameError: a format does not exist.
        UsageError: a format does not fit this variant.
    """
    names = None if requested is None else parse_formats(requested)
    if trial.variant == "fp32":
        return DEFAULT_FORMATS if names is None else names
    own = _OWN_FORMAT.get(trial.variant)
    if own is None:
        raise UsageError(
            f"trial {trial.number} was selected in its form {trial.variant!r}, which cannot be exported; allowed: "
            f"{', '.join(['fp32', *_OWN_FORMAT])}. {_fp32_instead(trial)}"
        )
    if names is None or names in ((own,), parse_formats("all")):
        return (own,)
    raise UsageError(
        f"trial {trial.number} was selected in its {trial.variant} form, whose file has the format {own}; got: "
        f"{', '.join(names)}. Leave out the formats to get the measured file. {_fp32_instead(trial)}"
    )


def write_measured(root: Path, trial: TrialRecord, folder: Path, validation: Validation, max_drop: float) -> Checked:
    """Copy the file that the search measured into ``folder``, and check that it has the measured accuracy.

    Args:
        root: folder of the study.
        trial: record of a variant.
        folder: folder to write to.
        validation: validation images, and the logits of the network that the file was made from.
        max_drop: accuracy that it may lose against the measured one, because processors round int8 differently.

    Raises:
        StoreError: the file is missing, or is not the measured one.
    """
    from autodistill.delivery.export.checks import check_file

    name = _OWN_FORMAT[trial.variant]
    measured: Mapping[str, Any] = trial.variants.get(trial.variant, {}).get("values", trial.values)
    path = folder / known_formats.get(name).file
    path.write_bytes(_measured_file(root, trial, measured))
    found = check_file(name, path, validation, max_drop=1.0, remark="the file that the search measured", threads=1)
    wanted = measured.get("accuracy")
    if found.state != "ok" or wanted is None or found.accuracy is None:
        return found
    lost = float(wanted) - found.accuracy
    if lost > max_drop + 1e-12:
        reason = f"the search measured an accuracy of {wanted:.4f}, here it has {found.accuracy:.4f}; "
        return replace(found, state="refused", remark=f"{reason}--max-drop allows {max_drop:g} less")
    return found


def folder_name(trial: TrialRecord) -> str:
    """Return the name of a student's folder; each form of a trial has its own."""
    return f"trial-{trial.number:05d}" + ("" if trial.variant == "fp32" else f"-{trial.variant}")


def _measured_file(root: Path, trial: TrialRecord, measured: Mapping[str, Any]) -> bytes:
    from autodistill.training.trials.trial_files import variant_file

    path = variant_file(root, trial.number, trial.variant)
    line = f"autodistill export {shlex.quote(str(root))} --trial {trial.number} --formats {_OWN_FORMAT[trial.variant]}"
    again = f"To quantize the student again: {line} -o OUT"
    if not path.is_file():
        raise StoreError(f"the {trial.variant} file of trial {trial.number} is missing: {path}. {again}")
    data = path.read_bytes()
    sizes = {int(measured[name]) for name in _SIZES if name in measured}
    if sizes and len(data) not in sizes:
        found = f"has {len(data):,} bytes, but the measured file had {min(sizes):,}"
        raise StoreError(
            f"the {trial.variant} file of trial {trial.number} was replaced or is damaged: {path} {found}. {again}"
        )
    return data


def _fp32_instead(trial: TrialRecord) -> str:
    return f"For the fp32 student, take it from front.trained(), or give --trial {trial.number}."
