"""What the teacher said during a search is not asked again by ``verify`` and ``compress``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import autodistill as ad
from autodistill.core.records import WorkerContext
from autodistill.delivery.export.compress import compress
from autodistill.delivery.verify.prepare import plan_verification
from autodistill.training.data import datasets
from autodistill.training.runtime.cache_folder import cache_folder
from autodistill.training.runtime.remote_storage import RemoteFolder
from autodistill.training.teachers.teacher import Teacher
from autodistill.training.trials.remote_trials import send_inputs
from autodistill.training.trials.retraining import RetrainingState


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> ad.Study:
    """Two students of two epochs, in batches that leave no image out."""
    student = {"family": "resnet", "width": 4, "depth": 1}
    study = ad.Study.create(
        data={"source": "digits", "train_size": 100},
        teacher={"source": "auto", "accept_weak": True, "options": {"epochs": 1, "model": student}},
        space={
            "student": {**student, "width": [4, 6]},
            "distillation": {"loss": "kd"},
            "train": {"lr": 0.02, "batch_size": 50},
        },
        objectives=["accuracy", "params"],
        epochs=2,
        rungs="off",
        survey="off",
        sampler="random",
        directory=tmp_path_factory.mktemp("studies") / "digits",
    )
    ad.search(study, budget="2trials", workers=1, progress=False)
    return study


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images that the teacher is asked about from now on."""
    counts: list[int] = []
    ask: Any = Teacher.__call__

    def counted(self: Teacher, images: torch.Tensor) -> torch.Tensor:
        counts.append(len(images))
        found: torch.Tensor = ask(self, images)
        return found

    monkeypatch.setattr(Teacher, "__call__", counted)
    return counts


def test_verify_needs_the_teacher_for_test_images_only(study: ad.Study, asked: list[int]) -> None:
    assert study.directory is not None
    ad.verify(study, seeds=1, twins=False, progress=False)
    assert sum(asked) == len(datasets.load_test(study.config.data))
    assert not (study.directory / "cache").exists()


def test_compress_makes_no_forward_pass_of_the_teacher(study: ad.Study, asked: list[int]) -> None:
    assert study.directory is not None
    compress(study.directory, study.trials()[0], methods=["weights"], ratios=[0.5], epochs=2, latency=False)
    assert asked == []
    assert not (study.directory / "cache").exists()


def test_a_worker_without_the_folder_makes_it_under_the_drivers_path(
    study: ad.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "not" / "here"
    monkeypatch.setenv("AUTODISTILL_CACHE", str(driver))
    plan = plan_verification(study, seeds=1, twins=False)
    assert plan.retraining.task.cache == str(cache_folder().absolute()) == str(driver)
    storage = (tmp_path / "storage").as_uri()
    send_inputs(plan.retraining.task, RemoteFolder(storage))
    worker = RetrainingState(plan.retraining, WorkerContext(storage=storage))
    assert worker.teacher_on_validation(worker.teacher).shape == (len(worker.data.val), 10)
    assert len(list((driver / "teacher").glob("*/rows.bin"))) == 1
