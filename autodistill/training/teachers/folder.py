"""Finds and reads the folder that ``teach`` wrote, also within the folder of the study that taught it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from autodistill.core import strict_yaml
from autodistill.core.errors import AutodistillError, StoreError, TeacherError
from autodistill.training.runtime.durable_files import read_folder, tensors_from

TEACHER_JSON = "teacher.json"
TEACHER_WEIGHTS = "teacher.safetensors"
_WITHIN = "teacher"  # the folder of a study's own teacher
_STUDY = "study.yaml"


def teacher_folder(path: Path) -> Path:
    """The folder of the teacher that ``path`` means: its own, that of a study within, or that of one of its files.

    Raises:
        TeacherError: there is none; of a study, the message names the teacher that it was given.
    """
    folder = path.parent if path.name in (TEACHER_JSON, TEACHER_WEIGHTS) else path
    found = next((one for one in (folder, folder / _WITHIN) if (one / TEACHER_JSON).is_file()), None)
    if found is not None:
        return found
    if (folder / _STUDY).is_file():
        raise TeacherError(f"study {folder} holds no teacher of its own. {_given(folder / _STUDY)}")
    raise TeacherError(
        f"{folder} holds no teacher ({TEACHER_JSON} is missing); give a folder that `autodistill teach` wrote, or that "
        "of a study that taught one."
    )


def read_teacher(folder: Path) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """Facts and weights of a taught teacher, both verified.

    Raises:
        TeacherError: a file is missing, damaged or no teacher's.
    """
    try:
        files, _ = read_folder(folder)
        return dict(json.loads(files[TEACHER_JSON])), tensors_from(files[TEACHER_WEIGHTS])
    except StoreError as error:
        raise TeacherError(str(error)) from error
    except (KeyError, ValueError, TypeError) as error:
        raise TeacherError(f"{folder} is no complete teacher: {error}. Teach it again.") from error


def _given(file: Path) -> str:
    """What to give instead of a study whose teacher came from elsewhere, or was not taught yet."""
    try:
        teacher = strict_yaml.load(file.read_text(encoding="utf-8"), str(file))[0]["teacher"]
        source, weights = teacher["source"], teacher.get("weights")
    except (OSError, ValueError, KeyError, TypeError, AutodistillError):
        return "Give the teacher that it was given."
    if source == "auto":
        return "It has not taught one yet: search on there first, or teach one with `autodistill teach`."
    what = f"{source} with the weights {weights}" if weights else source
    return f"Give the one that it learns from: {what}."
