"""Retraining of students of a finished study from scratch, one run per seed, for ``verify``.

A run is a trial with another seed, one rung (the top) and its own folder, named by a key of what is trained::

    DIR/verify/runs/KEY/step-…      checkpoints during training
    DIR/verify/runs/KEY/student/    the finished student, in the format of a trial's (``trial_files``)

This module does not read the test split; ``delivery.verify`` opens it when all runs are finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from autodistill.core.errors import StoreError, UsageError
from autodistill.core.records import Candidate, Evaluate, Params, Task, WorkerContext, stable_key
from autodistill.training.data import datasets
from autodistill.training.runtime.durable_files import read_folder, tensors_from
from autodistill.training.students import build as students
from autodistill.training.trials.evaluate import Trial, WorkerState
from autodistill.training.trials.inheritance import INHERIT, Parent, parent_in_search
from autodistill.training.trials.training_spec import TrainingSpec

REFITS = ("train", "train+val")
_FOLDER = Path("verify") / "runs"


@dataclass(frozen=True)
class Retraining:
    """Settings of the trainings of one verification.

    Attributes:
        task: task of the study; the runs are stored in its folder.
        refit: ``train``, or ``train+val`` to train on the validation images too.
        inherit: whether students with ``init: inherit`` start from the same student as in the search; else they start
            from random weights.
    """

    task: Task
    refit: str = "train"
    inherit: bool = False

    def __post_init__(self) -> None:
        if self.refit not in REFITS:
            raise UsageError(f"refit is {self.refit!r}; allowed: {' or '.join(REFITS)}.")

    def key(self, student: Params, distillation: Params, train: Params, *, seed: int) -> str:
        """Return 16 hex digits that identify a run within its study, whose settings, images and teacher are fixed."""
        inherits = [INHERIT] if self.inherit and self._init(train) == INHERIT else []
        return stable_key([student, distillation, train, seed, self.task.rungs[-1], self.refit, *inherits])

    def _init(self, train: Params) -> Any:
        return train.get("init", self.task.training.get("init"))

    def folder(self, key: str) -> Path:
        """Return the folder of the run ``key``."""
        return run_folder(self.task.directory, key)


def run_folder(directory: str | Path, key: str) -> Path:
    """Return the folder of the run ``key`` in a study's folder."""
    return Path(directory) / _FOLDER / key


def retrainer(plan: Retraining, context: WorkerContext) -> Evaluate:
    """Return the function that trains runs of ``plan`` on one worker; it loads nothing before the first one."""
    return RetrainingState(plan, context).evaluate


class RetrainingState(WorkerState):
    """State of a worker that retrains students; it shares the caches of the search.

    Args:
        plan: settings of the trainings.
        context: device, threads and connections of the worker.
    """

    def __init__(self, plan: Retraining, context: WorkerContext) -> None:
        task = replace(plan.task, rungs=plan.task.rungs[-1:], metrics=())
        super().__init__(task, context)
        self.plan = replace(plan, task=self.task)

    def trial(self, candidate: Candidate) -> Run:
        """Return the training of one run: it reports the counted costs, then accuracy after the last epoch."""
        return Run(self, TrainingSpec.of(candidate, self.task.training, kind=self.task.kind))

    @cached_property
    def data(self) -> datasets.ImageData:
        """The study's images; with ``train+val`` the training images include the validation images."""
        data = datasets.load_images(self.task.data, self.cache_folder)
        datasets.same_images(data, self.task.images, self.task.data)
        return data if self.plan.refit == "train" else joined(data)


class Run(Trial):
    """One retraining, in its own folder.

    Args:
        worker: state of the worker.
        spec: what is trained; its seed is that of the run.
    """

    def __init__(self, worker: RetrainingState, spec: TrainingSpec) -> None:
        super().__init__(worker, spec)
        self.plan = worker.plan
        self.folder = self.plan.folder(self.plan.key(spec.student, **spec.proposed, seed=spec.seed))

    def parent(self) -> Parent | None:
        """Return the student that the trial of these settings started from, if the runs inherit; else ``None``."""
        if not self.plan.inherit:
            return None
        return parent_in_search(self.task.directory, self.spec.student, self.spec.proposed["train"])

    @cached_property
    def key(self) -> str:
        """Identifier like that of a trial, but different for ``train+val``."""
        key = super().key
        return key if self.plan.refit == "train" else stable_key([key, self.plan.refit])


def joined(data: datasets.ImageData) -> datasets.ImageData:
    """Add the validation images to the training images; mean and std stay those of the training images."""
    train, val = data.train, data.val
    images = np.concatenate([train.images, val.images])
    labels, ids = np.concatenate([train.labels, val.labels]), np.concatenate([train.ids, val.ids])
    return replace(data, train=datasets.Split(images, labels, ids))


def load_run(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Load the finished student of a run, in eval mode on the CPU, and its facts.

    Raises:
        StoreError: the student is missing or damaged.
    """
    place = folder / "student"
    if not place.is_dir():
        raise StoreError(f"{place} is missing: that run is not finished. Run 'autodistill verify' again.")
    files, _ = read_folder(place)
    try:
        facts: dict[str, Any] = json.loads(files["student.json"])
        weights = tensors_from(files["student.safetensors"])
        model = build_again(facts)
        model.load_state_dict(weights)
    except (KeyError, ValueError, RuntimeError) as error:
        raise StoreError(f"{place} is damaged: {error}.") from error
    return model.eval(), facts


def build_again(facts: Mapping[str, Any]) -> nn.Module:
    """Build a new network of the architecture in a student's facts."""
    classes: Sequence[str] = facts["classes"]
    return students.build_student(
        facts["architecture"],
        image_size=facts["image_size"],
        channels=facts["channels"],
        num_classes=len(classes),
    )
