"""Unlabelled images in the set-up of a study: its file and flags, the checks of names, the estimate, the provenance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autodistill.config.study_file import StudyConfig, differences
from autodistill.core.errors import ConfigError
from autodistill.core.records import DataSpec
from autodistill.engines.setup.check_names import check_study
from autodistill.engines.setup.provenance import image_facts
from autodistill.engines.setup.study_setup import study_parts
from autodistill.engines.timing import training_times as module
from autodistill.engines.timing.estimate import estimate
from autodistill.engines.timing.timing import FORWARD, SMALL_STEP, STEP, Job, Timing, _place, _student_seconds
from autodistill.training.data import datasets

UNLABELLED = {"source": "synthetic", "options": {"count": 200, "classes": 2}}
KEYS = {"name": "x", "space": "digits", "epochs": 3, "survey": "off", "teacher": {"source": "somewhere"}}


def config(unlabelled=UNLABELLED, **keys) -> StudyConfig:
    return StudyConfig.load({**KEYS, "data": {"source": "digits", "unlabelled": unlabelled}, **keys})


def test_a_folder_is_made_absolute_and_written_to_the_resolved_study(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "study.yaml").write_text("data: {source: digits, unlabelled: more}\n")
    found = StudyConfig.load(tmp_path / "study.yaml")
    assert found.data.unlabelled == str(tmp_path / "more")
    assert found.resolved()["data"]["unlabelled"] == str(tmp_path / "more")
    again = StudyConfig.load(found.resolved())
    assert again == found
    monkeypatch.chdir(tmp_path)
    by_flag = StudyConfig.load(None, {"data": "digits", "data.unlabelled": "more"})
    assert by_flag.data.unlabelled == str(tmp_path / "more")
    mapping = StudyConfig.load({"data": {"source": "digits", "unlabelled": {"root": "more"}}})
    assert mapping.data.unlabelled == {"root": str(tmp_path / "more")}


def test_the_name_of_a_source_stays() -> None:
    assert config("synthetic").data.unlabelled == "synthetic"
    assert config("my_images:load").data.unlabelled == "my_images:load"


def test_other_unlabelled_images_are_another_study() -> None:
    assert differences(config(), config()) == []
    found = differences(config(), config("synthetic"))
    assert any(line.startswith("data.unlabelled") for line in found)


def test_a_ratio_without_unlabelled_images_is_refused() -> None:
    def problems(keys):
        found = config(None, teacher={"source": "auto"}, **keys)
        try:
            check_study(found, study_parts(found)["space"])
        except ConfigError as error:
            return error.problems
        return []

    assert problems({}) == []
    (problem,) = problems({"training": {"unlabelled_ratio": 2.0}})
    assert problem.startswith("training.unlabelled_ratio: the study has no unlabelled images; give --unlabelled DIR")
    space = {"include": "digits", "train": {"unlabelled_ratio": [0.5, 1.0, 2.0]}}
    (problem,) = problems({"space": space})
    assert problem.startswith("train.unlabelled_ratio")


@pytest.mark.parametrize(
    ("keys", "ratio"),
    [
        ({}, 1.0),
        ({"training": {"unlabelled_ratio": 3}}, 3.0),
        ({"space": {"include": "digits", "train": {"unlabelled_ratio": [0.5, 1.0, 3.0]}}}, 1.5),
        ({"space": {"include": "digits", "train": {"unlabelled_ratio": {"low": 0.0, "high": 4.0}}}}, 2.0),
    ],
)
def test_the_estimate_counts_steps_and_views_of_unlabelled_images(monkeypatch, tmp_path, keys, ratio) -> None:
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path))
    jobs: list[Job] = []

    def timed(job, memory, **settings):
        jobs.append(job)
        return Timing(
            {key: {STEP: 0.01, SMALL_STEP: 0.01, FORWARD: 0.0} for key in range(len(job.students))}, 0.002, 0.3, 0.0
        )

    monkeypatch.setattr(module, "timed", timed)
    found = config(**keys)
    parts = study_parts(found)
    forecast = estimate(found, parts["space"], parts["rungs"])
    assert jobs[0].unlabelled == ratio
    assert forecast.unlabelled_images == 200
    assert forecast.view_seconds == pytest.approx(0.002 * forecast.train_images * (1 + ratio))
    assert forecast.lines()[0].endswith("10 classes, 200 unlabelled images")


def test_the_timed_step_takes_unlabelled_images_and_is_remembered_apart() -> None:
    student = {"family": "resnet", "width": 8, "depth": 1}
    shape = {"image_size": 8, "channels": 3, "num_classes": 10}
    job = Job((student,), shape, 16, {"unlabelled_ratio": 2.5}, "cpu", 1, DataSpec("digits"), cache="", unlabelled=2.5)
    sizes: list[int] = []

    def forward(trainer, pixels):
        sizes.append(len(pixels))
        return normalize(trainer, pixels)

    from autodistill.training.loop.trainer import Trainer

    normalize = Trainer.normalize
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "normalize", forward)
        assert _student_seconds(student, job)[STEP] > 0
    assert sizes[0] == 16 + 40
    assert _place(job) != _place(replace(job, unlabelled=0.0))


def test_the_provenance_has_the_numbers() -> None:
    data = datasets.load_images(DataSpec("digits", unlabelled=UNLABELLED))
    facts = image_facts(data)
    assert (facts["unlabelled_images"], facts["unlabelled_images_left_out"]) == (200, 0)
    assert "unlabelled_images" not in image_facts(datasets.load_images(DataSpec("digits")))
