from __future__ import annotations

import pytest

import autodistill as ad
from autodistill.core.errors import ConfigError, UsageError
from autodistill.core.records import Constraint, Objective
from autodistill.search.objectives.objectives import objectives, parse_constraint, resolve, worst_wanted


def test_the_default_objectives_have_directions_units_and_stages() -> None:
    accuracy, params, latency = resolve(["accuracy", "params", "latency_ms"])
    assert (accuracy.direction, accuracy.unit, accuracy.stage) == ("maximize", "fraction", "trained")
    assert (params.direction, params.unit, params.stage) == ("minimize", "count", "known")
    assert (latency.direction, latency.unit, latency.stage) == ("minimize", "ms", "known")


def test_every_registered_objective_is_filed_under_its_own_name() -> None:
    assert all(objectives.get(name).name == name for name in objectives.names())


def test_an_objective_may_be_declared_on_the_spot() -> None:
    (energy,) = resolve(["energy:minimize"])
    assert (energy.name, energy.direction, energy.stage) == ("energy", "minimize", "known")


def test_wrong_objectives_are_reported_together() -> None:
    with pytest.raises(ConfigError, match=r"(?s)did you mean 'accuracy'.*given twice"):
        resolve(["acuracy", "params", "params"])


@pytest.mark.parametrize("name", ["seconds", "epochs"])
def test_names_that_every_trial_needs_for_its_own_work_are_refused_with_another_name(name: str) -> None:
    said = rf"{name}' has a reserved name: .* its {name} of work .*; rename it, e\.g\. to 'training_{name}'"
    for one in (f"{name}:minimize:trained", Objective(name, "minimize", "s", "known")):
        with pytest.raises(ConfigError, match=f"objective '{said}"):
            resolve(["accuracy", one])
    for names in (None, ["accuracy", name]):
        with pytest.raises(UsageError, match=f"constraint '{name} <= 0.1': '{said}"):
            parse_constraint(f"{name} <= 0.1", names)
    space = {"student": {"width": [1, 2]}}
    with pytest.raises(ConfigError, match=f"objective '{said}"):
        ad.Study.create(space=space, objectives=["accuracy", f"{name}:minimize"], directory=None)


def test_constraints_are_read_and_measured() -> None:
    constraint = parse_constraint(" params<=1e6 ")
    assert constraint == Constraint("params", "<=", 1e6)
    assert constraint.violation({"params": 1.5e6}) == 5e5
    assert constraint.violation({"params": 5e5}) < 0
    assert constraint.violation({}) == 0
    assert parse_constraint("accuracy >= 0.9").violation({"accuracy": 0.8}) == pytest.approx(0.1)


def test_the_tightest_bound_on_the_bad_side_of_an_objective_is_the_worst_that_is_wanted() -> None:
    bounds = [parse_constraint(c) for c in ("accuracy >= 0.8", "accuracy >= 0.9", "accuracy <= 1", "loss <= 0.5")]
    assert worst_wanted(bounds, resolve(["accuracy", "loss", "params"])) == {"accuracy": 0.9, "loss": 0.5}
    assert worst_wanted(bounds, resolve(["agreement"])) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params", "of the form"),
        ("params < 3", "use <= or >="),
        ("parms <= 3", "did you mean 'params'"),
        ("params <= x", "not a number"),
    ],
)
def test_a_wrong_constraint_says_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_constraint(text)
