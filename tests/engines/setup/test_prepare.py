import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import autodistill as ad
from autodistill.core.errors import AutodistillError, DataError, TeacherError, UsageError
from autodistill.core.records import DataSpec, State
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.setup import prepare as prepare_module
from autodistill.engines.setup.prepare import prepare
from autodistill.engines.timing.estimate import estimate
from autodistill.training.data import datasets
from autodistill.training.data.sources.image_folder import list_images
from autodistill.training.survey import surveyor as survey_groups


def test_a_latency_command_that_fails_is_found_before_a_teacher_is_taught(tmp_path: Path) -> None:
    study = ad.Study.create(data="digits", latency={"command": "false {onnx}"}, survey=4, directory=tmp_path / "study")
    with pytest.raises(AutodistillError, match="ended with exit code 1") as caught:
        ad.search(study, budget="2trials")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "study" / "teacher").exists()


def _images(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 100, (8, 8, 3), dtype=np.uint8) + np.uint8(100 * label)
            Image.fromarray(pixels).save(root / name / f"{number:02d}.png")
    return root


def _logits(path: Path, data: DataSpec, scale: float) -> None:
    pool = datasets.load_images(data)
    ids = np.concatenate([pool.train.ids, pool.val.ids])
    labels = np.concatenate([pool.train.labels, pool.val.labels])
    np.savez(path, ids=ids, logits=(scale * np.eye(2)[labels]).astype(np.float32))


def _begin(study: ad.Study) -> None:
    ad.search(study, budget="2trials", progress=False)


def _dry_run(study: ad.Study) -> None:
    estimate(study.config, study.space, study.rungs)


@pytest.mark.parametrize("begin", [_begin, _dry_run])
def test_a_broken_test_file_is_found_before_a_study_begins(tmp_path: Path, begin: Callable[[ad.Study], None]) -> None:
    root = _images(tmp_path / "images")
    broken = list_images(root, "test").files[0]
    broken.write_text("no image")
    study = ad.Study.create(
        data={"source": "image_folder", "root": str(root), "image_size": 8},
        space={"student": {"family": "resnet", "width": [2, 3], "depth": 1}},
        objectives=["accuracy", "params"],
        directory=tmp_path / "study",
    )
    with pytest.raises(DataError, match="1 of 80 images cannot be read") as caught:
        begin(study)
    assert str(broken) in str(caught.value)
    assert not (tmp_path / "study" / "teacher").exists()


def test_too_few_images_are_refused_before_a_teacher_is_taught(tmp_path: Path) -> None:
    study = ad.Study.create(
        data={"source": "image_folder", "root": str(_images(tmp_path / "images")), "image_size": 8},
        space={"student": {"family": "resnet", "width": [2, 3], "depth": 1}},
        objectives=["accuracy", "params"],
        directory=tmp_path / "study",
    )
    said = r"with 10 validation images, even .* \(50.0%\); at least 18 are needed. .* 116 in total .*val_fraction=0.5"
    with pytest.raises(TeacherError, match=said):
        ad.search(study, budget="2trials", progress=False)
    assert not (tmp_path / "study" / "teacher").exists()


def _one_trial(root: Path, teacher: Path, folder: Path) -> None:
    _logits(teacher, DataSpec("image_folder", root=str(root), image_size=8), 4.0)
    study = ad.Study.create(
        data={"source": "image_folder", "root": str(root), "image_size": 8},
        teacher={"source": str(teacher), "accept_weak": True},  # a dozen images prove nothing
        space={"student": {"family": "resnet", "width": [2, 3], "depth": 1}, "train": {"lr": [0.001, 0.003, 0.01]}},
        objectives=["accuracy", "params"],
        epochs=1,
        rungs="off",
        survey="off",
        sampler="random",
        directory=folder,
    )
    ad.search(study, budget="1trials", progress=False)


def test_a_search_checks_the_test_files_and_never_reads_the_test_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    monkeypatch.setattr(datasets, "load_test", lambda *args: pytest.fail("the search read the test part"))
    monkeypatch.setattr(datasets, "check_files", lambda *args, **keys: checked.append(args))
    _one_trial(_images(tmp_path / "images"), tmp_path / "teacher.npz", tmp_path / "study")
    assert len(checked) == 1


def test_a_test_file_that_breaks_after_the_search_stops_verify_before_it_trains(tmp_path: Path) -> None:
    root = _images(tmp_path / "images")
    _one_trial(root, tmp_path / "teacher.npz", tmp_path / "study")
    list_images(root, "test").files[0].write_text("no image")
    with pytest.raises(DataError, match="1 of 80 images cannot be read; replace each by a readable file; removing one"):
        ad.verify(tmp_path / "study", seeds=1, progress=False)
    assert not (tmp_path / "study" / "verify").exists()


def test_a_study_goes_on_with_the_images_and_the_teacher_it_had_and_with_no_others(tmp_path: Path) -> None:
    root, teacher = _images(tmp_path / "images"), tmp_path / "teacher.npz"
    _one_trial(root, teacher, tmp_path / "study")

    victim, moved = root / "cat" / "07.png", tmp_path / "07.png"
    victim.rename(moved)
    with pytest.raises(
        UsageError, match=r"differ from those of the trials of study .*: other images or labels, .* then, .* now"
    ) as caught:
        ad.search(ad.Study.open(tmp_path / "study"), budget="2trials", progress=False)
    assert "--warm-start" in str(caught.value)
    with pytest.raises(UsageError, match=r"differ from those of the trials of study .*: other images or labels"):
        ad.verify(tmp_path / "study", seeds=1, progress=False)
    moved.rename(victim)

    _logits(teacher, DataSpec("image_folder", root=str(root), image_size=8), 2.0)
    with pytest.raises(UsageError, match=r"differ from those of the trials of study .*: another teacher"):
        ad.search(ad.Study.open(tmp_path / "study"), budget="2trials", progress=False)
    _logits(teacher, DataSpec("image_folder", root=str(root), image_size=8), 4.0)

    again = ad.Study.open(tmp_path / "study")
    ad.search(again, budget="2trials", progress=False)
    assert sum(trial.state is State.COMPLETE for trial in again.trials()) == 2


FACTORY = """
import timm

def make():
    return timm.create_model("resnet10t", num_classes=10, in_chans=1)
"""


@pytest.mark.parametrize(
    ("options", "training", "said"),
    [
        ({}, {"init": "teacher"}, ""),  # students get the normalization of the teacher
        ({"mean": 0.31, "std": 0.37}, {"init": "teacher"}, ""),
        (
            {"mean": 0.31, "std": 0.37, "image_size": 32},
            {"init": "teacher"},
            r"input is 32 px, 1 channel.*students get 8 px, 1 channel, so they start below",
        ),
        ({}, {}, ""),
    ],
)
def test_students_that_start_from_a_teacher_that_is_fed_otherwise_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], training: dict[str, Any], said: str
) -> None:
    (tmp_path / "own_teacher.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    study = ad.Study.create(
        data="digits",
        teacher={"source": "own_teacher:make", "options": options, "accept_weak": True},
        objectives=["accuracy", "params"],
        training=training,
        survey="off",
        directory=tmp_path / "study",
    )
    with warnings.catch_warnings(record=True) as caught, study.running():
        warnings.simplefilter("always")
        prepare(study, Watch())
    found = [str(one.message) for one in caught if "init: teacher" in str(one.message)]
    assert len(found) == bool(said)
    assert not said or re.search(said, found[0])


@pytest.mark.parametrize(
    ("within", "said", "bound"),
    [
        ("auto", "students more than 20 points below the teacher (0.8) count as no gain; --within off counts", 0.8),
        (5, "students must satisfy accuracy >= teacher - 0.05 (0.95)", 0.95),
        ("off", "", None),
    ],
)
def test_what_counts_is_said_as_soon_as_the_teacher_is_known(
    within: Any, said: str, bound: float | None, tmp_path: Path
) -> None:
    root, teacher = _images(tmp_path / "images"), tmp_path / "teacher.npz"
    _logits(teacher, DataSpec("image_folder", root=str(root), image_size=8), 4.0)  # always right
    study = ad.Study.create(
        data={"source": "image_folder", "root": str(root), "image_size": 8},
        teacher={"source": str(teacher), "accept_weak": True},
        space={"student": {"family": "resnet", "width": [2, 3], "depth": 1}},
        objectives=["accuracy", "params"],
        survey="off",
        within=within,
        directory=tmp_path / "study",
    )
    stages: list[str] = []
    prepare(study, Watch(lambda snapshot: stages.append(snapshot.message)))
    found = [message for message in stages if message.startswith("students ")]
    assert [message.startswith(said) for message in found] == [True] * bool(said)
    reach = study.reach()
    assert (None if reach is None else reach.bound) == (None if bound is None else pytest.approx(bound))


def test_what_is_said_of_the_teacher_is_stored_with_the_study(tmp_path: Path) -> None:
    root, teacher = _images(tmp_path / "images"), tmp_path / "teacher.npz"
    spec = DataSpec("image_folder", root=str(root), image_size=8)
    _logits(teacher, spec, 4.0)
    study = ad.Study.create(
        data={"source": "image_folder", "root": str(root), "image_size": 8},
        teacher={"source": str(teacher), "accept_weak": True},
        space={"student": {"family": "resnet", "width": [2, 3], "depth": 1}},
        objectives=["balanced_accuracy", "accuracy", "params"],
        survey="off",
        directory=tmp_path / "study",
    )
    prepare(study, Watch())
    (note,) = study.teacher_notes()
    assert note.startswith("the validation images were split off the training images: if the teacher teacher.npz ")
    assert study.teacher_values() == {"accuracy": 1.0, "balanced_accuracy": 1.0}


COUNTING = """
import torch
from torch import nn

asked = []


class Bright(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        asked.append(len(x))
        level = x.mean((1, 2, 3))
        return self.scale * torch.stack([0.6 - level, level - 0.4], 1) * 20


def make():
    return Bright()
"""


def test_preflight_trials_a_resume_and_a_second_study_ask_the_teacher_about_each_validation_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUTODISTILL_LEASE", str(tmp_path / "lease"))
    (tmp_path / "counting_teacher.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(tmp_path)
    root = _images(tmp_path / "images")
    keys = {
        "data": {"source": "image_folder", "root": str(root), "image_size": 8},
        "teacher": {"source": "counting_teacher:make", "accept_weak": True, "options": {"mean": 0.0, "std": 1.0}},
        "space": {"student": {"family": "resnet", "width": [2, 3, 4], "depth": 1}},
        "objectives": ["accuracy", "params"],
        "training": {"augment": "none"},
        "epochs": 2,
        "rungs": "off",
        "survey": "off",
        "sampler": "random",
    }
    study = ad.Study.create(**keys, directory=tmp_path / "study")
    ad.search(study, budget="1trials", progress=False)
    from counting_teacher import asked

    data = datasets.load_images(study.config.data, tmp_path / "cache")
    twice = [len(data.val), len(data.val), 6, len(data.val) - 6]  # a few images, to see that it answers consistently
    assert [images for images in asked if images > 1] == [*twice, len(data.val)]  # costs are counted with one image
    asked.clear()
    ad.search(ad.Study.open(tmp_path / "study"), budget="2trials", progress=False)
    with (second := ad.Study.create(**keys, directory=tmp_path / "second")).running():
        prepare(second, Watch())
    assert asked == []


def test_a_study_that_has_trained_goes_on_with_the_survey_that_it_has_whatever_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUTODISTILL_LEASE", str(tmp_path / "lease"))
    root, teacher = _images(tmp_path / "images"), tmp_path / "teacher.npz"
    _logits(teacher, DataSpec("image_folder", root=str(root), image_size=8), 4.0)
    keys = {
        "data": {"source": "image_folder", "root": str(root), "image_size": 8},
        "teacher": {"source": str(teacher), "accept_weak": True},
        "space": {"student": {"family": "resnet", "width": {"low": 2, "high": 20}, "depth": 1}},
        "objectives": ["accuracy", "params"],
        "epochs": 1,
        "rungs": "off",
        "sampler": "random",
    }
    monkeypatch.setattr(prepare_module, "pool_size", lambda setting, seconds: 3 if seconds is None else 19)
    study = ad.Study.create(**keys, directory=tmp_path / "study")
    ad.search(study, budget="1trials", progress=False)
    monkeypatch.setattr(survey_groups.Surveyor, "measure", lambda *args, **keys: pytest.fail("surveyed again"))
    monkeypatch.setattr(survey_groups.Surveyor, "order", lambda *args, **keys: pytest.fail("surveyed again"))
    again = ad.Study.open(tmp_path / "study")
    told: list[str] = []
    with again.running("10h"):
        prepare(again, Watch(lambda snapshot: told.append(snapshot.message)))
    assert "3 students measured, 3 within the constraints" in told


def test_the_time_for_a_survey_is_its_share_of_the_budget_without_a_limit_for_a_number_that_the_user_names() -> None:
    auto = ad.Study.create(data="digits", objectives=["accuracy", "params"]).config
    named = ad.Study.create(data="digits", objectives=["accuracy", "params"], survey=50).config
    now = time.monotonic()
    hours = prepare_module._hours(auto, 600.0)
    assert hours.end - now == pytest.approx(48.0, abs=5.0)
    assert hours.last - now == pytest.approx(96.0, abs=5.0)
    assert prepare_module._hours(named, 600.0).end == prepare_module._hours(auto, None).end == float("inf")
