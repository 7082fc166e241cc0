"""Trials with unlabelled images: the teacher cache, resuming, verification, and the losses that leave them out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from autodistill.core.errors import InterruptedTrialError, TeacherError
from autodistill.core.records import Candidate, DataSpec, Task, TeacherSpec, WorkerContext
from autodistill.training.data import datasets
from autodistill.training.teachers import load as teachers
from autodistill.training.teachers.checking.preflight import preflight
from autodistill.training.trials.evaluate import Trial, WorkerState
from autodistill.training.trials.retraining import Retraining, RetrainingState, Run
from autodistill.training.trials.teach import teach
from autodistill.training.trials.training_spec import TrainingSpec

STUDENT = {"family": "resnetv2", "width": 4, "stages": 2}
KD = {"loss": "kd", "temperature": 2.0, "alpha": 0.5}
TRAIN = {"lr": 0.02, "batch_size": 16, "augment": "none"}
FURTHER = 24


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("further")
    rng = np.random.default_rng(5)
    for number in range(FURTHER):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")
    return DataSpec("synthetic", options={"classes": 4, "count": 120, "size": 8}, unlabelled=str(folder))


@pytest.fixture(scope="module")
def teacher(spec, tmp_path_factory):
    torch.set_num_threads(1)
    return teach(datasets.load_images(spec), STUDENT, directory=tmp_path_factory.mktemp("t") / "teacher", epochs=1)


@pytest.fixture
def task(spec, teacher, tmp_path):
    return Task(
        data=spec, teacher=teacher, directory=str(tmp_path), rungs=(2,), metrics=("accuracy", "params"), training={}
    )


def candidate(distillation=KD, **train):
    return Candidate(0, STUDENT, distillation, {**TRAIN, **train}, seed=1)


def run(task, one, **context):
    worker = WorkerState(task, WorkerContext(**context))
    return worker, list(worker.evaluate(one))


def test_the_teacher_of_a_study_is_trained_on_labelled_images_only(spec, teacher):
    data = datasets.load_images(spec)
    assert len(data.unlabelled) == FURTHER
    assert teachers.load_teacher(teacher, data).preprocessing.image_size == 8


def test_the_teacher_runs_once_on_each_unlabelled_image_for_all_trials(task):
    worker, reports = run(task, candidate())
    assert reports[-1].epochs == 2
    cache = max(worker._caches.values(), key=lambda one: one.forwards)
    labelled = len(worker.data.train) // 16 * 16
    assert cache.forwards > labelled  # unlabelled rows are among them
    assert cache.images == worker.data.pool_size
    seen = cache._filled[0][worker.data.unlabelled.ids]
    assert seen.sum() >= 16
    again, _ = run(task, Candidate(1, STUDENT, KD, {**TRAIN, "lr": 0.01}, seed=1))
    assert sum(one.forwards for one in again._caches.values()) <= FURTHER + labelled - cache.forwards + 120


def test_no_metric_counts_unlabelled_images_and_plain_training_leaves_them_out(task, spec):
    plain = replace(task, data=replace(spec, unlabelled=None), directory=task.directory + "/plain")
    values = [run(one, candidate({"loss": "none"}))[1][-1].values for one in (task, plain)]
    assert values[0] == values[1]
    taught = run(replace(task, directory=task.directory + "/kd"), candidate())[1][-1].values
    assert taught["loss"] != values[0]["loss"]


def test_a_stopped_trial_resumes_with_the_same_bits(task):
    torch.set_num_threads(1)
    _, whole = run(replace(task, directory=task.directory + "/whole"), candidate())
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) == 8

    with pytest.raises(InterruptedTrialError):
        run(task, candidate(), should_stop=should_stop)
    _, parts = run(task, candidate())
    assert parts[-1].values == whole[-1].values


def test_another_set_of_unlabelled_images_is_another_training(task, spec):
    one = TrainingSpec.of(candidate(), task.training, kind=task.kind)
    first = Trial(WorkerState(task, WorkerContext()), one).key
    second = Trial(WorkerState(replace(task, data=replace(spec, unlabelled=None)), WorkerContext()), one).key
    assert first != second


def test_verification_trains_with_them_too(task):
    worker = RetrainingState(Retraining(task, "train+val"), WorkerContext())
    one = Run(worker, TrainingSpec.of(candidate(), task.training, kind=task.kind))
    trainer = one.trainer(one._build())
    assert len(trainer.feed.unlabelled.ids) == FURTHER
    assert len(trainer.feed.labels) == len(worker.data.train)


@pytest.mark.parametrize("term", ["embed_cosine", "rkd", "crd"])
@pytest.mark.parametrize("train", [{}, {"mixup": 0.2}, {"teacher_mode": "online"}])
def test_every_embedding_term_and_way_to_ask_the_teacher_takes_them(task, term, train):
    _, reports = run(replace(task, rungs=(1,)), candidate({**KD, "embedding": term}, **train))
    assert np.isfinite(reports[-1].values["accuracy"])


def test_stored_logits_must_cover_them(task, spec, tmp_path):
    data = datasets.load_images(spec)
    labelled = data.pool_size - FURTHER
    right = np.zeros((data.pool_size, 4), dtype=np.float32)
    for split in (data.train, data.val):
        right[split.ids, split.labels] = 4.0
    np.savez(tmp_path / "few.npz", logits=right[:labelled])
    np.savez(tmp_path / "all.npz", logits=right)
    with pytest.raises(TeacherError, match="after them for the unlabelled ones"):
        preflight(teachers.load_teacher(TeacherSpec(str(tmp_path / "few.npz")), data), data)
    preflight(teachers.load_teacher(TeacherSpec(str(tmp_path / "all.npz")), data), data)
    _, reports = run(replace(task, teacher=TeacherSpec(str(tmp_path / "all.npz")), rungs=(1,)), candidate())
    assert reports[-1].values["accuracy"] >= 0
