"""Exports of a form that the search measured: its very file goes out, if it still does what was measured.

A front with int8 forms (``variants: [fp32, int8]``) has members that are files of ONNX Runtime. Their figures are those
of the file that is kept with the trial, so no other file may carry them: neither the network that it was made from, nor
one that is quantized anew.
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


def formats_for(trial: TrialRecord, asked: str | Sequence[str] | None) -> tuple[str, ...]:
    """The formats that a trial is exported in: those that are asked for, if they hold the form that it is a record of.

    Args:
        trial: a record of the trial as it was trained (fp32), or of one of its variants.
        asked: names; ``None`` for ``safetensors`` and ``onnx``, and for the one of a variant, as is ``all``.

    Raises:
        UnknownNameError: no such format.
        UsageError: a format that does not hold this variant.
    """
    names = None if asked is None else parse_formats(asked)
    if trial.variant == "fp32":
        return DEFAULT_FORMATS if names is None else names
    own = _OWN_FORMAT.get(trial.variant)
    if own is None:
        raise UsageError(
            f"trial {trial.number} is meant in its form {trial.variant!r}, whose file export does not know; allowed: "
            f"{', '.join(['fp32', *_OWN_FORMAT])}. {_fp32_instead(trial)}"
        )
    if names is None or names in ((own,), parse_formats("all")):
        return (own,)
    raise UsageError(
        f"trial {trial.number} is meant in its {trial.variant} form, whose file is of the format {own}; got: "
        f"{', '.join(names)}. Leave the formats away to get the file that was measured. {_fp32_instead(trial)}"
    )


def write_measured(root: Path, trial: TrialRecord, folder: Path, validation: Validation, max_drop: float) -> Checked:
    """Copy the file that the search measured into ``folder``, and check that it gives the accuracy that was measured.

    Args:
        root: folder of the study.
        trial: a record of a variant.
        folder: where to.
        validation: real images, and what the network that the file was made from says of them.
        max_drop: accuracy that it may lose against what was measured (processors round int8 differently).

    Raises:
        StoreError: the file is missing, or is not the one that was measured.
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
        said = f"the search measured an accuracy of {wanted:.4f}, here it has {found.accuracy:.4f}; "
        return replace(found, state="refused", remark=f"{said}--max-drop allows {max_drop:g} less")
    return found


def folder_name(trial: TrialRecord) -> str:
    """Name of the folder of a student among others: the forms of one trial lie apart."""
    return f"trial-{trial.number:05d}" + ("" if trial.variant == "fp32" else f"-{trial.variant}")


def trial_words(trial: TrialRecord) -> str:
    """``trial 3``, or ``trial 3 (int8)``."""
    return f"trial {trial.number}" + ("" if trial.variant == "fp32" else f" ({trial.variant})")


def _measured_file(root: Path, trial: TrialRecord, measured: Mapping[str, Any]) -> bytes:
    from autodistill.training.trials.trial_files import variant_file

    path = variant_file(root, trial.number, trial.variant)
    line = f"autodistill export {shlex.quote(str(root))} --trial {trial.number} --formats {_OWN_FORMAT[trial.variant]}"
    anew = f"To quantize the student anew: {line} -o OUT"
    if not path.is_file():
        raise StoreError(f"the {trial.variant} file of trial {trial.number} is missing: {path}. {anew}")
    data = path.read_bytes()
    sizes = {int(measured[name]) for name in _SIZES if name in measured}
    if sizes and len(data) not in sizes:
        said = f"has {len(data):,} bytes, and the one that was measured had {min(sizes):,}"
        raise StoreError(
            f"the {trial.variant} file of trial {trial.number} is another one or damaged: {path} {said}. {anew}"
        )
    return data


def _fp32_instead(trial: TrialRecord) -> str:
    return f"For the student as it was trained, take it from front.trained(), or give --trial {trial.number}."
