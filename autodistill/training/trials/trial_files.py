"""What a trial leaves on disk: checkpoints while it runs, its student when it reached the top rung.

``DIR/checkpoints/trial-00012/`` holds ``step-…`` folders (``checkpoint.py``) or ``student/``, which has
``student.safetensors``, ``student.json`` (architecture, shape, classes, mean and std, reports) and a manifest. The
files of its measured variants lie in ``variants/``.
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

STUDENT = "student"
VARIANTS = "variants"
_WEIGHTS = "student.safetensors"
_FACTS = "student.json"


def trial_folder(directory: str | Path, number: int) -> Path:
    """Folder of trial ``number``."""
    return Path(directory) / "checkpoints" / f"trial-{number:05d}"


def variant_file(directory: str | Path, number: int, name: str) -> Path:
    """The file of a variant of trial ``number``, as ``VariantWork`` wrote and measured it."""
    return trial_folder(directory, number) / VARIANTS / f"{name}.onnx"


def discard(task: Task, number: int) -> None:
    """Remove what trial ``number`` left; nothing happens where it left nothing."""
    shutil.rmtree(trial_folder(task.directory, number), ignore_errors=True)


def save_student(folder: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write the finished student of a trial; returns its folder.

    Args:
        folder: the trial's.
        weights: its state dict.
        facts: see ``student_facts``.
    """
    files = {_WEIGHTS: tensor_bytes(weights), _FACTS: json.dumps(dict(facts), indent=1).encode()}
    write_folder(folder / STUDENT, files)
    return folder / STUDENT


def student_facts(directory: str | Path, number: int) -> dict[str, Any]:
    """What is known of a finished student.

    Returns:
        ``architecture``, ``image_size``, ``channels``, ``classes`` (names), ``mean`` and ``std`` (per channel, of
        images in [0, 1]), ``reports`` (rung to values), ``epochs``, ``seconds``, ``key``.

    Raises:
        StoreError: the trial has no finished student, or it is damaged.
    """
    return _read(directory, number)[0]


def load_student(directory: str | Path, number: int) -> nn.Module:
    """The finished student of a trial, in eval mode, on the CPU.

    It takes images normalized by ``mean`` and ``std`` of ``student_facts``.

    Raises:
        StoreError: the trial has no finished student, or it is damaged.
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
    """Facts of the student in a trial's folder, if it is the one of ``key`` and intact."""
    if not (folder / STUDENT / _FACTS).is_file():
        return None
    try:
        facts: dict[str, Any] = json.loads(read_folder(folder / STUDENT)[0][_FACTS])
    except (StoreError, KeyError, ValueError):
        return None
    return facts if facts.get("key") == key else None


def student_key(folder: Path) -> str | None:
    """What the student in a trial's folder was trained as, unverified; ``None`` where none can be read."""
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
