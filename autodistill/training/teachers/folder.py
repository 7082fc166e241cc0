"""Folders written by ``teach``, on their own or inside the folder of the study that trained the teacher."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from autodistill.core import strict_yaml
from autodistill.core.errors import AutodistillError, StoreError, TeacherError
from autodistill.training.runtime.durable_files import read_folder, tensors_from
from autodistill.training.weights.folders import TEACHER_JSON as TEACHER_JSON
from autodistill.training.weights.folders import TEACHER_WEIGHTS as TEACHER_WEIGHTS

_WITHIN = "teacher"  # subfolder of a study with its own teacher
_STUDY = "study.yaml"


def teacher_folder(path: Path) -> Path:
    """Return the teacher's folder for ``path``: a teacher's folder, a study's folder, or a file in a teacher's folder.

    Raises:
        TeacherError: there is no teacher; for a study, the message names the teacher that it uses.
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
    """Read and verify facts and weights of a trained teacher.

    Raises:
        TeacherError: a file is missing, damaged or not that of a teacher.
    """
    try:
        files, _ = read_folder(folder)
        return dict(json.loads(files[TEACHER_JSON])), tensors_from(files[TEACHER_WEIGHTS])
    except StoreError as error:
        raise TeacherError(str(error)) from error
    except (KeyError, ValueError, TypeError) as error:
        raise TeacherError(f"{folder} is not a complete teacher: {error}. Run `autodistill teach` again.") from error


def _given(file: Path) -> str:
    """Return advice for a study without its own teacher: it came from elsewhere, or is not trained yet."""
    try:
        teacher = strict_yaml.load(file.read_text(encoding="utf-8"), str(file))[0]["teacher"]
        source, weights = teacher["source"], teacher.get("weights")
    except (OSError, ValueError, KeyError, TypeError, AutodistillError):
        return "Give the teacher that the study uses."
    if source == "auto":
        return "It has not trained one yet: continue its search first, or train one with `autodistill teach`."
    what = f"{source} with the weights {weights}" if weights else source
    return f"Give the teacher that it uses: {what}."
