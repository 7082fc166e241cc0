"""``init: inherit``: a student starts from the best finished student of its family, and verify does not unless told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from autodistill.core.records import Candidate, DataSpec, Task, TeacherSpec, WorkerContext
from autodistill.training.data import datasets
from autodistill.training.trials.evaluate import WorkerState, load_student
from autodistill.training.trials.inheritance import parent_in_search, parent_of
from autodistill.training.trials.retraining import Retraining, RetrainingState
from autodistill.training.trials.teach import teach
from autodistill.training.trials.trial_files import student_facts, trial_folder

DATA = DataSpec("synthetic", image_size=8, train_size=96, options={"classes": 3})
WIDE = {"family": "resnetv2", "width": 16, "stages": 2}
NARROW = {**WIDE, "width": 8}
KD = {"loss": "kd", "temperature": 2.0, "alpha": 0.5}
TRAIN = {"lr": 0.02, "batch_size": 32, "ema": 0.0}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    torch.set_num_threads(1)
    data = datasets.load_images(DATA, tmp_path / "cache")
    teacher = teach(data, WIDE, directory=tmp_path / "teacher", epochs=1)
    return Task(DATA, TeacherSpec(teacher.source), str(tmp_path), (1,), ("accuracy", "params"))


def candidate(number: int, student: dict[str, Any], **train: Any) -> Candidate:
    return Candidate(number, student, KD, {**TRAIN, **train}, 5)


def run(task: Task, *candidates: Candidate) -> None:
    worker = WorkerState(task, WorkerContext())
    for one in candidates:
        list(worker.evaluate(one))


def test_a_student_starts_from_the_most_accurate_finished_one_of_its_family(task: Task) -> None:
    run(task, candidate(0, WIDE), candidate(1, {"family": "vit", "width": 16, "depth": 1}))
    file = trial_folder(task.directory, 0) / "student" / "student.json"
    assert parent_of(task.directory, 7, {"family": "lcnet"}) is None
    found = parent_of(task.directory, 8, NARROW)
    assert found is not None
    assert found.number == 0
    assert found.licence == "own"
    trial = WorkerState(task, WorkerContext()).trial(candidate(9, NARROW, init="inherit"))
    model = trial._build()
    parent = load_student(task.directory, 0).state_dict()
    assert torch.equal(model.state_dict()["stem.conv.weight"], parent["stem.conv.weight"][:8])
    assert file.is_file()


def test_the_choice_is_made_once_so_that_a_resumed_trial_has_the_same_key(task: Task) -> None:
    run(task, candidate(0, WIDE))
    first = WorkerState(task, WorkerContext()).trial(candidate(5, WIDE, init="inherit"))
    key = first.key
    run(task, candidate(1, WIDE, lr=0.03))
    again = WorkerState(task, WorkerContext()).trial(candidate(5, WIDE, init="inherit"))
    assert again.key == key
    assert again.start.parent == first.start.parent
    assert json.loads((trial_folder(task.directory, 5) / "inherits.json").read_text()) == {"trial": 0}


def test_without_a_finished_student_the_weights_are_random_and_it_says_so(task: Task) -> None:
    run(task, candidate(0, WIDE, init="inherit"), candidate(1, NARROW, init="inherit"))
    assert student_facts(task.directory, 0)["weights"] is None
    facts = student_facts(task.directory, 1)
    assert facts["inherited"] == 0
    assert facts["weights"]["source"] == "trial 0 of the study"
    assert facts["weights"]["licence"] == "own"


def test_verify_trains_without_it_unless_told(task: Task) -> None:
    run(task, candidate(0, WIDE), candidate(1, NARROW, init="inherit"))
    train = {**TRAIN, "init": "inherit"}
    found = parent_in_search(task.directory, NARROW, train)
    assert found is not None
    assert found.number == 0
    keys = []
    for inherit in (False, True):
        plan = Retraining(task, inherit=inherit)
        one = RetrainingState(plan, WorkerContext()).trial(Candidate(3, NARROW, KD, train, 11))
        assert (one.start.parent is not None) == inherit
        keys.append((plan.key(NARROW, KD, train, seed=11), one.key))
    assert len({key for pair in keys for key in pair}) == 4
    same = [Retraining(task, inherit=one).key(NARROW, KD, TRAIN, seed=1) for one in (False, True)]
    assert same[0] == same[1]
    assert not (trial_folder(task.directory, 3) / "inherits.json").exists()
