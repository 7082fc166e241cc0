"""Hints that the best values lie on a bound of the space."""

from __future__ import annotations

from typing import Any

import pytest

from autodistill.core.records import State, TrialRecord
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.front import Front
from autodistill.search.results.range_bounds import RangeBound, bounds_line, bounds_on_front
from autodistill.search.space.space import Space

OBJECTIVES = resolve(["accuracy", "params"])
SPACE = Space.parse(
    {
        "student": {"width": {"low": 4, "high": 64}, "depth": [1, 2]},
        "distillation": {
            "loss": ["none", "kd"],
            "temperature": {"low": 1.0, "high": 8.0, "log": True, "when": {"loss": ["kd"]}},
            "alpha": {"low": 0.1, "high": 1.0, "when": {"loss": ["kd"]}},
        },
        "train": {"lr": {"low": 2e-3, "high": 2e-2, "log": True}, "decay": {"low": 0.1, "high": 0.1}},
    }
)


def member(number: int, lr: float, width: int = 20, variant: str = "fp32", **distillation: Any) -> TrialRecord:
    rank = number + (0.5 if variant != "fp32" else 0.0)
    return TrialRecord(
        number,
        State.COMPLETE,
        {"accuracy": 0.9 + 0.001 * rank, "params": 100.0 + rank},
        {"width": width, "depth": 2},
        distillation or {"loss": "none"},
        {"lr": lr, "decay": 0.1},
        0,
    )


def found(*members: TrialRecord) -> list[RangeBound]:
    return bounds_on_front(Front("s", OBJECTIVES, tuple(members)), SPACE)


def test_half_of_the_front_on_a_bound_is_said() -> None:
    bounds = found(member(0, 0.02), member(1, 0.019999999953948307), member(2, 0.008), member(3, 0.01))
    assert bounds == [RangeBound("train.lr", "upper", 0.02, 2, 4)]
    assert bounds_line(bounds, "digits") == (
        "best values lie on bounds: train.lr on its upper bound 0.02 (2 of 4 students); widen it in a copy of the "
        "space (autodistill spaces cp digits) for a new study"
    )


@pytest.mark.parametrize(
    "members",
    [
        (member(0, 0.02), member(1, 0.008), member(2, 0.008)),  # a third of them
        (member(0, 0.02),),  # one says nothing
        (member(0, 0.02), member(0, 0.02)),  # one student in two forms
        (member(0, 0.0193), member(1, 0.0193)),  # 1.5 % of the logarithm away
        (),
    ],
)
def test_fewer_members_at_a_bound_are_chance(members: tuple[TrialRecord, ...]) -> None:
    assert found(*members) == []
    assert bounds_line(found(*members)) == ""


def test_numbers_of_the_student_and_conditional_ones_count_and_choices_do_not() -> None:
    kd = {"loss": "kd", "temperature": 1.0, "alpha": 0.5}
    bounds = found(member(0, 0.01, 4, **kd), member(1, 0.005, 4, **kd), member(2, 0.004, 64))
    assert [(e.parameter, e.side, e.members) for e in bounds] == [
        ("student.width", "lower", 2),
        ("distillation.temperature", "lower", 2),
    ]
    assert ", distillation.temperature on its lower bound 1 (2 of 3 students); widen them" in bounds_line(bounds)


def test_a_trial_that_the_space_does_not_know_is_left_out() -> None:
    assert found(member(0, 0.02), member(1, 5.0)) == []


def test_a_bound_that_no_space_can_widen_is_not_named() -> None:
    kd = {"loss": "kd", "temperature": 2.0}
    assert found(*(member(number, 0.01, **kd, alpha=1.0) for number in range(3))) == []
    lower = found(*(member(number, 0.01, **kd, alpha=0.1) for number in range(3)))
    assert [(one.parameter, one.side) for one in lower] == [("distillation.alpha", "lower")]
