"""``init: inherit``: a student starts from the best finished student of its family in the same study.

Layers are copied as far as names and shapes allow (``students/matching.py``). The choice is made once, when a trial
begins, and kept in the trial's folder, so that a resumed trial starts from the same student.

Later trials stand on the shoulders of earlier ones, so their accuracies are not those of their settings alone, and
repeat no better by themselves. It is therefore off by default, and ``verify`` trains without it unless told.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from autodistill.core.errors import StoreError
from autodistill.core.records import Params
from autodistill.training.runtime.durable_files import read_folder, tensors_from
from autodistill.training.weights.folders import STUDENT, STUDENT_JSON, STUDENT_WEIGHTS, trial_folder
from autodistill.training.weights.licences import OWN, UNKNOWN

INHERIT = "inherit"
_CHOICE = "inherits.json"


@dataclass(frozen=True)
class Parent:
    """The finished student that another one starts from.

    Attributes:
        number: its trial.
        key: key of its training.
        directory: folder of the study.
        mean: mean per channel that its images are normalized with.
        std: standard deviation per channel.
        licence: licence of the weights that it started from itself.
    """

    number: int
    key: str
    directory: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str

    def tensors(self) -> dict[str, Tensor]:
        """Read its weights.

        Raises:
            StoreError: they are missing or damaged.
        """
        folder = trial_folder(self.directory, self.number) / STUDENT
        try:
            return dict(tensors_from(read_folder(folder)[0][STUDENT_WEIGHTS]))
        except (KeyError, ValueError) as error:
            raise StoreError(f"{folder} is damaged: {error}.") from error

    def facts(self) -> dict[str, Any]:
        """Return what is stored with a student that starts from this one."""
        return {"source": f"trial {self.number} of the study", "licence": self.licence, "fingerprint": self.key}


def parent_of(directory: str, number: int, student: Params) -> Parent | None:
    """Return the student that trial ``number`` starts from: the one chosen before, or the best finished one now.

    Args:
        directory: folder of the study.
        number: number of the trial.
        student: family and parameters of its student.

    Returns:
        The student; ``None`` if no student of the family was finished when the trial began.
    """
    file = trial_folder(directory, number) / _CHOICE
    try:
        chosen = json.loads(file.read_bytes())["trial"]
    except (OSError, ValueError, KeyError):
        chosen = _best(directory, number, student)
        _keep(file, chosen)
    return None if chosen is None else _parent(directory, int(chosen))


def parent_in_search(directory: str, student: Params, train: Params) -> Parent | None:
    """Return the student that the search's trial of these settings started from; ``None`` if there is none."""
    for facts in _finished(directory).values():
        if facts.get("architecture") == dict(student) and facts.get("train") == dict(train):
            number = facts.get("inherited")
            return None if number is None else _parent(directory, int(number))
    return None


def _best(directory: str, number: int, student: Params) -> int | None:
    """Return the trial of the most accurate finished student of a family; of equal ones the first."""
    found = {
        other: _accuracy(facts)
        for other, facts in _finished(directory).items()
        if other != number and facts.get("architecture", {}).get("family") == student.get("family")
    }
    return max(found, key=lambda other: (found[other], -other), default=None)


def _finished(directory: str) -> dict[int, dict[str, Any]]:
    """Return the facts of all finished students of a study, by trial; unreadable ones are left out."""
    return dict(_each_finished(directory))


def _each_finished(directory: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for file in sorted((Path(directory) / "checkpoints").glob(f"trial-*/{STUDENT}/{STUDENT_JSON}")):
        try:
            facts = json.loads(file.read_bytes())
            yield int(file.parent.parent.name.rpartition("-")[2]), facts
        except (OSError, ValueError):
            continue


def _accuracy(facts: Mapping[str, Any]) -> float:
    reports = facts.get("reports") or {}
    return float(reports[max(reports, key=int)]["values"].get("accuracy", 0.0)) if reports else 0.0


def _parent(directory: str, number: int) -> Parent:
    file = trial_folder(directory, number) / STUDENT / STUDENT_JSON
    try:
        facts = json.loads(file.read_bytes())
        started = facts.get("weights", {"licence": UNKNOWN})
        licence = OWN if started is None else str(started.get("licence", UNKNOWN))
        return Parent(number, str(facts["key"]), directory, tuple(facts["mean"]), tuple(facts["std"]), licence)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file}, from which another student started, cannot be read: {error}.") from error


def _keep(file: Path, chosen: int | None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_text(json.dumps({"trial": chosen}), encoding="utf-8")
    os.replace(new, file)
