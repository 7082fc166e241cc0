"""The control arm: every sampler trains some students without distillation, twins of the front where it can."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import evaluate, make_study

from autodistill.core.records import Decision, State, TrialRecord
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.front import Front
from autodistill.search.sampler import control_arm as control
from autodistill.search.sampler.by_name import SAMPLERS
from autodistill.search.space import builtin as spaces
from autodistill.search.space.space import Space
from autodistill.search.study.study import Study

LOSSES = ["none", "kd", "dkd", "dist", "nkd", "hard", "logit_mse", "logit_std", "soft_ce", "a", "b", "c"]
SPACE = {
    "student": {"width": [4, 8, 16, 32, 64], "depth": [1, 2, 3]},
    "distillation": {"loss": LOSSES},
    "train": {"lr": [0.1, 0.5, 1.0]},
}
TWO = resolve(["accuracy", "params"])


def record(number: int, width: int, loss: str, accuracy: float, lr: float = 0.1) -> TrialRecord:
    values = {"accuracy": accuracy, "params": float(width)}
    return TrialRecord(number, State.COMPLETE, values, {"width": width}, {"loss": loss}, {"lr": lr}, 0)


def searched(sampler: str, trials: int) -> Study:
    study = make_study(space=SPACE, sampler=sampler, seed=3)
    with study.running(f"{trials}trials"):
        while (candidate := study.ask()) is not None:
            for report in evaluate(candidate):
                if study.report(candidate, report) is Decision.STOP:
                    break
            study.close(candidate)
    return study


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "gp"])
def test_one_trial_in_ten_is_a_control_from_the_first_design_on(sampler: str) -> None:
    losses = [t.distillation["loss"] for t in searched(sampler, 31).trials()]
    for count in (10, 20, 30):
        assert losses[:count].count("none") >= count // 10, losses[:count]


@pytest.mark.parametrize("name", spaces.space_names())
def test_every_shipped_space_has_the_control_among_its_losses(name: str) -> None:
    assert control.has_control(Space.parse(spaces.load_space(name)))


def test_a_space_without_a_choice_has_no_control() -> None:
    for losses in (["kd", "dkd"], "none", "kd"):
        assert not control.has_control(Space.parse({**SPACE, "distillation": {"loss": losses}}))


def test_the_control_is_the_undistilled_twin_of_the_best_student_that_has_none() -> None:
    trials = [record(0, 4, "kd", 0.8), record(1, 8, "kd", 0.9), record(2, 8, "none", 0.7), record(3, 16, "kd", 0.85)]
    values = {
        0: {"student.width": 4, "distillation.loss": "kd", "distillation.temperature": 2.0, "train.lr": 0.1},
        1: {"student.width": 8, "distillation.loss": "kd", "train.lr": 0.1},
    }
    expected = {"student.width": 4, "train.lr": 0.1, "distillation.loss": "none"}
    assert control.control(trials, TWO, values.__getitem__) == expected  # 1 has a twin, 3 is not on the front
    assert control.control([record(2, 8, "none", 0.7)], TWO, values.__getitem__) == {"distillation.loss": "none"}


def test_a_control_is_due_when_fewer_than_one_in_ten_were() -> None:
    distilled = [record(number, 4, "kd", 0.5) for number in range(19)]
    assert [control.due(distilled[:count]) for count in (0, 8, 9, 18)] == [False, False, True, True]
    once = [record(99, 4, "none", 0.5), *distilled[:17]]
    assert [control.due(once), control.due([*once, distilled[0]])] == [False, True]


def test_the_front_file_says_what_each_student_gained_over_its_twin(tmp_path: Path) -> None:
    trials = [record(0, 4, "kd", 0.8), record(1, 8, "kd", 0.9), record(2, 8, "none", 0.7), record(3, 2, "none", 0.6)]
    rows = Front.of("toy", TWO, trials).to_json()["trials"]
    assert {row["number"]: row["gain"] for row in rows} == {3: None, 0: None, 1: pytest.approx(0.2)}
