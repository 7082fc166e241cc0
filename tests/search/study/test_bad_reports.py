"""Numbers of other libraries in reports are taken, and what no trial can have done is neither stored nor charged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from toys import LEVELS, costs, make_study

import autodistill as ad
from autodistill.core.records import Candidate, Decision, Report, State
from autodistill.search.rungs.levels import Rungs

NUMBERS = [
    torch.tensor(0.25),
    torch.tensor([0.25], requires_grad=True),
    np.array(0.25),
    np.array([[0.25]]),
    np.float32(0.25),
    Decimal("0.25"),
    Fraction(1, 4),
]


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: type(value).__name__)
def test_a_metric_of_another_library_is_taken_as_a_number(value: Any) -> None:
    def evaluate(candidate: Candidate) -> Iterator[Report]:
        yield Report(0, costs(candidate.student))
        variants = {"int8": {"values": {"accuracy": value, **costs(candidate.student)}}}
        yield Report(1, {"accuracy": value}, value * 4, value, variants=variants)

    study = make_study(rungs=Rungs((1,), stopping=False))
    ad.search(study, evaluate=evaluate, budget="1trials", progress=False)
    (record,) = study.trials()
    assert record.state is State.COMPLETE, record.message
    assert record.values["accuracy"] == 0.25
    assert record.variants["int8"]["values"]["accuracy"] == 0.25
    assert (record.epochs, record.seconds) == (1.0, 0.25)
    assert type(record.rungs[1]["accuracy"]) is float


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(3), r"accuracy=torch\.Tensor of shape \(3,\)"),
        (np.zeros((2, 2)), r"accuracy=numpy\.ndarray of shape \(2, 2\)"),
        ([0.5], "accuracy=list"),
        ("0.5", "accuracy=str"),
        (None, "accuracy=NoneType"),
        (True, "accuracy=bool"),
        (10**400, "accuracy=a number beyond the range of a float"),
        (Decimal("1e999"), "accuracy=inf"),
    ],
)
def test_a_metric_that_is_no_number_fails_its_trial_by_the_name_of_its_type(value: Any, said: str) -> None:
    study = make_study()
    with study.running("5trials"):
        candidate = study.ask()
        assert candidate is not None
        assert study.report(candidate, Report(1, {"accuracy": value}, 1.0)) is Decision.STOP
        study.close(candidate)
    (record,) = study.trials()
    assert record.reason == "NON_FINITE"
    assert re.search(said, record.message), record.message


@pytest.mark.parametrize("keys", [{"rung": "1"}, {"epochs": "9"}, {"seconds": torch.zeros(2)}, {"rung": None}])
def test_an_amount_that_is_no_number_is_refused_where_the_report_is_made(keys: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(keys))} of a report is .*; give it a number"):
        Report(**{"rung": 1, "values": {}, **keys})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"seconds": 1e18}, "seconds=1e\\+18"),
        ({"seconds": -5.0}, "seconds=-5"),
        ({"epochs": 1e18}, "epochs=1e\\+18"),
        ({"epochs": -1.0}, "epochs=-1"),
        ({"teacher_seconds": -1.0}, "teacher_seconds=-1"),
        ({"seconds": float("nan")}, "seconds=nan"),
    ],
)
@pytest.mark.parametrize("rung", [0, 1, len(LEVELS)])
def test_an_impossible_amount_is_neither_stored_nor_charged(keys: dict[str, float], said: str, rung: int) -> None:
    study = make_study()
    with study.running("1h,100epochs,1gpu-hours"):
        candidate = study.ask()
        assert candidate is not None
        report = Report(rung, {"accuracy": 0.5, **costs(candidate.student)}, **{"epochs": 1.0, **keys})
        assert study.report(candidate, report, seconds=0.5) is Decision.STOP
        study.close(candidate)
        assert study.ask() is not None
    record = study.trials()[0]
    assert record.reason == "NON_FINITE"
    assert said.replace("\\", "") in record.message
    assert record.rungs == {}
    assert 0 <= study.spent.epochs <= 1
    assert 0 <= study.spent.device_seconds <= 0.5
    if "seconds" in keys:
        assert study.spent.device_seconds == 0.5  # as its engine saw it


@pytest.mark.parametrize("epochs", [1e18, -3.0, float("nan"), torch.tensor(2.0)])
def test_progress_of_a_failed_trial_is_charged_only_where_it_is_possible(epochs: Any) -> None:
    study = make_study()
    with study.running("5trials"):
        candidate = study.ask()
        assert candidate is not None
        study.close(candidate, RuntimeError("a bug"), epochs=epochs)
    assert study.spent.epochs == (2.0 if isinstance(epochs, torch.Tensor) else 0.0)


def test_a_variant_whose_figures_are_not_finite_never_joins_the_front() -> None:
    def evaluate(candidate: Candidate) -> Iterator[Report]:
        yield Report(0, costs(candidate.student))
        variants = {"int8": {"values": {"accuracy": float("inf"), **costs(candidate.student)}}}
        yield Report(1, {"accuracy": 0.5}, 1.0, variants=variants)

    study = make_study(rungs=Rungs((1,), stopping=False))
    ad.search(study, evaluate=evaluate, budget="1trials", progress=False)
    assert [trial.variant for trial in study.front().trials] == ["fp32"]
    assert study.trials()[0].variants["int8"]["reason"] == "it has accuracy=inf; a finite number is needed"
