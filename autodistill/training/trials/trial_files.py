"""Files of a trial on disk: checkpoints while it runs, and its student once it has reached the top rung.

``DIR/checkpoints/trial-00012/`` holds ``step-…`` folders (``runtime/durable_files.py``) or ``student/``, which has
``student.safetensors``, ``student.json`` (architecture, shape, classes, mean and std, reports) and a manifest. The
files of its measured variants are in ``variants/``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from autodistill.core.errors import StoreError
from autodistill.core.records import Task
from autodistill.training.runtime.durable_files import read_folder, tensor_bytes, tensors_from, write_folder
from autodistill.training.students import build as students
from autodistill.training.weights.folders import STUDENT as STUDENT
from autodistill.training.weights.folders import STUDENT_JSON as _FACTS
from autodistill.training.weights.folders import STUDENT_WEIGHTS as _WEIGHTS
from autodistill.training.weights.folders import trial_folder as trial_folder

VARIANTS = "variants"


def variant_file(directory: str | Path, number: int, name: str) -> Path:
    """Return the path of a variant of trial ``number``, written and measured by ``VariantWork``."""
    return trial_folder(directory, number) / VARIANTS / f"{name}.onnx"


def discard(task: Task, number: int) -> None:
    """Delete the files of trial ``number``, if there are any."""
    shutil.rmtree(trial_folder(task.directory, number), ignore_errors=True)


def save_student(folder: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write the finished student of a trial; return its folder.

    Args:
        folder: folder of the trial.
        weights: state dict of the student.
        facts: facts of the student, see ``student_facts``.
    """
    files = {_WEIGHTS: tensor_bytes(weights), _FACTS: json.dumps(dict(facts), indent=1).encode()}
    write_folder(folder / STUDENT, files)
    return folder / STUDENT


def student_facts(directory: str | Path, number: int) -> dict[str, Any]:
    """Read the facts of a finished student.

    Returns:
        ``architecture``, ``image_size``, ``channels``, ``classes`` (names), ``task`` (``multiclass``
        if absent), ``mean`` and ``std`` (per channel, of
        images in [0, 1]), ``reports`` (rung to values), ``epochs``, ``seconds``, ``key``.

    Raises:
        StoreError: the trial has no finished student, or the student is damaged.
    """
    return _read(directory, number)[0]


def load_student(directory: str | Path, number: int) -> nn.Module:
    """Load the finished student of a trial, in eval mode on the CPU.

    Its input is images normalized with ``mean`` and ``std`` of ``student_facts``.

    Raises:
        StoreError: the trial has no finished student, or the student is damaged.
    """
    facts, weights = _read(directory, number)
    model = students.build_student(
        facts["architecture"],
        image_size=facts["image_size"],
        channels=facts["channels"],
        num_classes=len(facts["classes"]),
    )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise StoreError(f"the student of trial {number} does not fit its architecture: {error}") from error
    return model.eval()


def finished(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the facts of the student in a trial's folder; ``None`` if it is missing, damaged or of another key."""
    if not (folder / STUDENT / _FACTS).is_file():
        return None
    try:
        facts: dict[str, Any] = json.loads(read_folder(folder / STUDENT)[0][_FACTS])
    except (StoreError, KeyError, ValueError):
        return None
    return facts if facts.get("key") == key else None


def student_key(folder: Path) -> str | None:
    """Return the key of the student in a trial's folder without verifying its files; ``None`` if it is unreadable."""
    try:
        return str(json.loads((folder / STUDENT / _FACTS).read_bytes())["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(directory: str | Path, number: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    folder = trial_folder(directory, number) / STUDENT
    if not folder.is_dir():
        raise StoreError(f"trial {number} has no finished student: {folder} is missing. It ended before its top rung.")
    try:
        files, _ = read_folder(folder)
        return json.loads(files[_FACTS]), tensors_from(files[_WEIGHTS])
    except (KeyError, ValueError) as error:
        raise StoreError(f"{folder} is damaged: {error}.") from error
