"""Trains students of a finished study again from scratch, one run per seed, for ``verify``.

A run is a trial with another seed, one rung (the top) and a folder of its own, named by what is trained::

    DIR/verify/runs/KEY/step-…      checkpoints while it trains
    DIR/verify/runs/KEY/student/    the finished student, as a trial leaves it (``trial_files``)

The test split is not known here: whoever compares the runs opens it when all of them are finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autodistill.core.errors import StoreError, UsageError
from autodistill.core.records import Candidate, Evaluate, Params, Report, Task, WorkerContext, stable_key
from autodistill.training.data import datasets
from autodistill.training.runtime import measurement_lock
from autodistill.training.runtime.durable_files import read_folder, tensors_from
from autodistill.training.students import build as students
from autodistill.training.trials.evaluate import Trial, WorkerState

REFITS = ("train", "train+val")
_FOLDER = Path("verify") / "runs"


@dataclass(frozen=True)
class Retraining:
    """Trainings of one verification, as a worker needs them.

    Attributes:
        task: of the study; its folder holds the runs.
        refit: ``train``, or ``train+val`` to train on the validation images too.
    """

    task: Task
    refit: str = "train"

    def __post_init__(self) -> None:
        if self.refit not in REFITS:
            raise UsageError(f"refit is {self.refit!r}; allowed: {' or '.join(REFITS)}.")

    def key(self, student: Params, distillation: Params, train: Params, *, seed: int) -> str:
        """16 hex digits that name a run inside its study, whose settings, images and teacher do not change."""
        return stable_key([student, distillation, train, seed, self.task.rungs[-1], self.refit])

    def folder(self, key: str) -> Path:
        """Folder of the run called ``key``."""
        return run_folder(self.task.directory, key)


def run_folder(directory: str | Path, key: str) -> Path:
    """Folder of the run called ``key`` in a study's folder."""
    return Path(directory) / _FOLDER / key


def retrainer(plan: Retraining, context: WorkerContext) -> Evaluate:
    """What trains the runs of ``plan`` on one worker; nothing is loaded before the first one."""
    return RetrainingState(plan, context).evaluate


class RetrainingState(WorkerState):
    """A worker's workplace with the caches of the search, and the validation images to train on where asked.

    Args:
        plan: what is trained.
        context: the worker's device, threads and connections.
    """

    def __init__(self, plan: Retraining, context: WorkerContext) -> None:
        task = replace(plan.task, rungs=plan.task.rungs[-1:], metrics=())
        super().__init__(task, context)
        self.plan = replace(plan, task=self.task)

    def evaluate(self, candidate: Candidate) -> Iterator[Report]:
        """Report the counted costs, then accuracy on validation after the last epoch; errors as in ``WorkerState``."""
        if self.device.type == "cpu":
            torch.set_num_threads(self.context.threads)
        try:
            yield from Run(self, candidate).reports()
        finally:
            measurement_lock.release()

    @cached_property
    def data(self) -> datasets.ImageData:
        """The study's images; with ``train+val`` the validation images are trained on as well."""
        data = datasets.load_images(self.task.data, self.cache_folder)
        return data if self.plan.refit == "train" else joined(data)


class Run(Trial):
    """One training, in a folder of its own.

    Args:
        worker: the worker's workplace.
        candidate: what is trained; its seed is the run's.
    """

    def __init__(self, worker: RetrainingState, candidate: Candidate) -> None:
        super().__init__(worker, candidate)
        self.plan = worker.plan
        self.folder = self.plan.folder(
            self.plan.key(candidate.student, candidate.distillation, candidate.train, seed=candidate.seed)
        )

    @cached_property
    def key(self) -> str:
        """As a trial's, and different where other images are trained on."""
        key = super().key
        return key if self.plan.refit == "train" else stable_key([key, self.plan.refit])


def joined(data: datasets.ImageData) -> datasets.ImageData:
    """``data`` with the validation images among the training images; mean and std stay those of training."""
    train, val = data.train, data.val
    images = np.concatenate([train.images, val.images])
    labels, ids = np.concatenate([train.labels, val.labels]), np.concatenate([train.ids, val.ids])
    return replace(data, train=datasets.Split(images, labels, ids))


def load_run(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The finished student of a run, in eval mode on the CPU, and its facts.

    Raises:
        StoreError: there is none, or it is damaged.
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
    """A fresh network of the architecture in a student's facts."""
    classes: Sequence[str] = facts["classes"]
    return students.build_student(
        facts["architecture"],
        image_size=facts["image_size"],
        channels=facts["channels"],
        num_classes=len(classes),
    )
