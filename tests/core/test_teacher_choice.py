"""Several teachers as a categorical of the search: written as a list, chosen by each distilled trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from autodistill.config.study_file import StudyConfig
from autodistill.core.errors import ConfigError, UnknownNameError
from autodistill.core.records import Candidate, DataSpec, Task, TeacherSpec, WorkerContext
from autodistill.core.teacher_choice import from_list, member, members
from autodistill.engines.setup.study_setup import config_space
from autodistill.training.trials.evaluate import WorkerState

SPACE = {"student": {"family": "resnetv2", "width": [4, 8]}, "distillation": {"loss": ["none", "kd", "dkd"]}}
CODE = """
import torch
from torch import nn

def levels(sign=1.0):
    class Levels(nn.Module):
        def forward(self, x):
            level = x.mean((1, 2, 3))[:, None] * 4
            return -sign * (level - torch.tensor([[0.5, 1.5, 2.5, 3.5]])).abs()
    return Levels()
"""
TWO = [
    {"source": "choice_code:levels"},
    {"source": "choice_code:levels", "options": {"sign": -1.0}},
]


def test_a_list_in_the_study_file_is_a_choice_with_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "teacher.json").touch()
    (tmp_path / "study.yaml").write_text("data: digits\nteacher: [runs/a, runs/b, resnet18]\n")
    config = StudyConfig.load(tmp_path / "study.yaml")
    found = members(config.teacher)
    assert list(found) == ["a", "b", "resnet18"]
    assert found["a"].source == str(tmp_path / "runs" / "a")
    assert StudyConfig.load(config.resolved()).teacher == config.teacher
    assert config_space(config).to_dict()["distillation"]["teacher"]["values"] == ["a", "b", "resnet18"]


def test_a_study_beside_the_file_is_a_teacher_and_never_a_space(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "study.yaml").touch()
    (tmp_path / "study.yaml").write_text("data: digits\nspace: digits\nteacher: [digits, resnet18]\n")
    config = StudyConfig.load(tmp_path / "study.yaml")
    assert members(config.teacher)["digits"].source == str(tmp_path / "digits")
    assert config.space == "digits"


def test_an_option_that_none_of_several_teachers_takes_is_refused() -> None:
    spec = TeacherSpec("choice", options={"members": ["a", "b"], "image_size": 64})
    with pytest.raises(
        UnknownNameError, match=r"option of several teachers 'image_size'.* the teacher they belong to: \{source"
    ):
        members(spec)


def test_teachers_of_one_name_are_numbered() -> None:
    spec = TeacherSpec("choice", options={"members": ["x/t", "y/t", {"source": "resnet18", "weights": "t"}]})
    assert list(members(spec)) == ["t", "t-2", "t-3"]
    assert member(spec, "t-2").source == "y/t"
    assert member(spec, None).source == "x/t"
    with pytest.raises(UnknownNameError, match="teacher of the study 't-4'"):
        member(spec, "t-4")


def test_only_distilled_trials_choose_a_teacher() -> None:
    space = config_space(StudyConfig.load({"data": "digits", "space": SPACE, "teacher": ["resnet18", "resnet34"]}))
    chosen = {p.name: p.condition for p in space.parameters}
    assert chosen["distillation.teacher"] == (("distillation.loss", ("kd", "dkd")),)
    assert "teacher" in space.nest({"distillation.loss": "kd", "distillation.teacher": "resnet34"})["distillation"]
    assert "distillation.teacher" not in space.active({"distillation.loss": "none"})


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (["resnet18"], "a choice needs at least two"),
        (["resnet18", "auto"], "'auto' cannot be one of several"),
        (["resnet18", {"source": "resnet34", "wieghts": "x"}], "wieghts"),
    ],
)
def test_lists_that_are_no_choice_are_refused_before_anything_is_written(teacher: list[object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StudyConfig.load({"data": "digits", "teacher": teacher})


def test_each_trial_learns_from_the_teacher_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "choice_code.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    data = DataSpec("synthetic", options={"classes": 4, "count": 160, "size": 8})
    spec = TeacherSpec(**from_list(TWO))
    task = Task(data, spec, str(tmp_path), (1,), ("accuracy",))
    worker = WorkerState(task, WorkerContext())
    student = {"family": "resnetv2", "width": 4, "stages": 2}

    def agreement(number: int, **mix: object) -> float:
        one = Candidate(
            number, student, {"loss": "kd", "alpha": 1.0, **mix}, {"augment": "none", "ema": 0.0, "lr": 0.02}, 0
        )
        return list(worker.evaluate(one))[-1].values["agreement"]

    first, second = agreement(0, teacher="choice_code:levels"), agreement(1, teacher="choice_code:levels-2")
    assert len({cache.folder for cache in worker._caches.values()}) == 2
    assert first != second
    assert agreement(2) == first  # none named: the first one
    with pytest.raises(UnknownNameError, match="teacher of the study 'third'"):
        agreement(3, teacher="third")
