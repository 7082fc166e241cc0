from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autodistill.core.errors import StoreError, UsageError
from autodistill.core.records import Candidate, DataSpec, Task, TeacherSpec, WorkerContext
from autodistill.delivery.verify.evaluation import TestSplit as Test
from autodistill.delivery.verify.evaluation import examine, predict
from autodistill.training.data import datasets
from autodistill.training.students.student_input import StudentInput
from autodistill.training.trials.retraining import Retraining, RetrainingState, joined, load_run, retrainer
from autodistill.training.trials.run_result import read_result
from autodistill.training.trials.teach import teach

DATA = DataSpec("synthetic", image_size=8, train_size=96, options={"classes": 3})
STUDENT = {"family": "resnetv2", "width": 4, "stages": 2}
TRAIN = {"lr": 0.02, "batch_size": 32, "ema": 0.0}
KD = {"loss": "kd", "temperature": 2.0, "alpha": 0.5}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Retraining:
    folder = tmp_path_factory.mktemp("study")
    data = datasets.load_images(DATA, folder / "cache")
    torch.set_num_threads(1)
    teacher = teach(data, {**STUDENT, "width": 6}, directory=folder / "teacher", epochs=1)
    return Retraining(Task(DATA, TeacherSpec(teacher.source), str(folder), (1, 2), ("accuracy", "latency_ms")))


def candidate(seed: int = 5) -> Candidate:
    return Candidate(0, STUDENT, KD, TRAIN, seed)


def test_a_run_is_one_training_to_the_top_rung_without_measuring_latency(plan: Retraining) -> None:
    reports = list(retrainer(plan, WorkerContext())(candidate()))
    assert [report.rung for report in reports] == [0, 1]
    assert list(reports[0].values) == ["params"]
    assert reports[1].epochs == 2
    folder = plan.folder(plan.key(STUDENT, KD, TRAIN, seed=5))
    model, facts = load_run(folder)
    assert not model.training
    assert facts["reports"]["1"]["values"]["accuracy"] == reports[1].values["accuracy"]
    assert not list(folder.glob("step-*"))  # checkpoints are gone


def test_a_result_has_the_students_predictions_on_the_test_images(plan: Retraining) -> None:
    run = RetrainingState(plan, WorkerContext()).trial(candidate(seed=6))
    list(retrainer(plan, WorkerContext())(candidate(seed=6)))
    worker = RetrainingState(plan, WorkerContext())
    model, facts = load_run(run.folder)
    test = Test.open(plan.task, worker.cache_folder, worker.teacher)
    right = predict(model, test.split.images, StudentInput.of(facts)).argmax(1).numpy() == test.split.labels
    result = examine(run.folder, test, refit="train", keep=False)
    assert (result.correct() == right).all()
    assert result.accuracy == pytest.approx(right.mean())
    assert result.agreement is not None
    assert result.validation is not None
    assert read_result(run.folder, run.key) == result
    assert read_result(run.folder, "another training") is None
    with pytest.raises(StoreError, match="that run is not finished"):
        load_run(run.folder)  # its weights were not to be kept


def test_a_damaged_result_counts_as_none(plan: Retraining) -> None:
    run = RetrainingState(plan, WorkerContext()).trial(candidate(seed=6))
    path = run.folder / "result" / "result.json"
    if not path.is_file():
        path.parent.mkdir(parents=True)
        (path.parent / "MANIFEST.json").write_text("{}")
    path.write_text("{}")
    assert read_result(run.folder, run.key) is None


def test_runs_of_other_seeds_losses_recipes_and_images_have_other_names(plan: Retraining) -> None:
    other = Retraining(plan.task, "train+val")
    names = {
        plan.key(STUDENT, KD, TRAIN, seed=1),
        plan.key(STUDENT, KD, TRAIN, seed=2),
        plan.key(STUDENT, {"loss": "none"}, TRAIN, seed=1),
        plan.key(STUDENT, KD, {**TRAIN, "lr": 0.01}, seed=1),
        other.key(STUDENT, KD, TRAIN, seed=1),
    }
    assert len(names) == 5
    workers = [RetrainingState(one, WorkerContext()) for one in (plan, other)]
    assert workers[0].trial(candidate()).key != workers[1].trial(candidate()).key


def test_validation_images_join_the_training_images_and_keep_their_names(plan: Retraining) -> None:
    data = datasets.load_images(DATA, Path(plan.task.directory) / "cache")
    both = joined(data)
    assert len(both.train) == len(data.train) + len(data.val)
    assert set(both.train.ids.tolist()) == {*data.train.ids.tolist(), *data.val.ids.tolist()}
    row = both.train.ids.tolist().index(int(data.val.ids[0]))
    assert np.array_equal(both.train.images[row], data.val.images[0])
    assert both.train.labels[row] == data.val.labels[0]
    assert (both.mean, both.fingerprint) == (data.mean, data.fingerprint)


def test_a_refit_on_something_else_is_refused(plan: Retraining) -> None:
    with pytest.raises(UsageError, match=r"refit is 'test'; allowed: train or train\+val"):
        Retraining(plan.task, "test")
