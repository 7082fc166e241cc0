"""The front sampler where studies are odd: trials of others, costs that are not known, spaces that are nearly empty."""

from __future__ import annotations

from collections import Counter
from typing import Any

import optuna
import pytest
import toys
from optuna.distributions import CategoricalDistribution

import autodistill as ad
from autodistill.core.records import Constraint, Report, State
from autodistill.search.objectives.objectives import resolve
from autodistill.search.rungs.levels import Rungs
from autodistill.search.sampler.front_sampler import FrontSampler
from autodistill.search.space import moves as proposals
from autodistill.search.space.space import Space
from autodistill.search.storage import study_folder as store
from autodistill.search.study.study import Study

SPACE: dict[str, Any] = {
    "student": {"width": [4, 8, 16, 32], "kind": ["a", "b", "c"]},
    "train": {"lr": {"low": 0.1, "high": 1.0}},
}
LEVELS = (1, 3, 9)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def plain(trial: optuna.Trial) -> tuple[float, float]:
    candidate = Space.parse(SPACE).suggest(trial)
    width = candidate["student"]["width"]
    return 1 - width**-0.5 - 0.3 * candidate["train"]["lr"], width * 100.0


def plain_study(**keywords: Any) -> optuna.Study:
    front = FrontSampler(SPACE, costs=lambda student: {"params": student["width"] * 100.0}, **keywords)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=front)


def names_study(names: list[str], levels: tuple[int, ...] = LEVELS, **keywords: Any) -> Study:
    space = Space.parse(keywords.pop("space", toys.SPACE))
    return Study(
        store.open_storage(None), "odd", space=space, objectives=resolve(names), rungs=Rungs(levels), **keywords
    )


def evaluate(candidate: Any, levels: tuple[int, ...] = LEVELS, top_only: str = "") -> Any:
    known = toys.costs(candidate.student)
    if candidate.start_rung == 0:
        yield Report(0, known)
    for rung, epochs in enumerate(levels, 1):
        if rung > candidate.start_rung:
            accuracy = toys.accuracy(candidate, epochs)
            values = {"accuracy": accuracy, "energy": 10 - accuracy, **known}
            yield Report(rung, {k: v for k, v in values.items() if k != top_only or rung == len(levels)}, epochs, 0.01)


@pytest.mark.parametrize(
    ("params", "distributions"),
    [
        ({"student.kind": "d"}, {"student.kind": CategoricalDistribution(["a", "d"])}),
        ({"student.width": None}, {}),
    ],
)
def test_trials_that_do_not_belong_to_the_space_are_left_out(params, distributions) -> None:
    given = {"student.width": 8, "student.kind": "a", "train.lr": 0.5} | params
    given = {name: value for name, value in given.items() if value is not None}
    known = {p.name: p.distribution for p in Space.parse(SPACE).parameters} | distributions
    study = plain_study()
    for _ in range(3):
        study.add_trial(
            optuna.trial.create_trial(
                params=given, distributions={name: known[name] for name in given}, values=[0.5, 800.0]
            )
        )
    study.optimize(plain, n_trials=14)
    own = study.trials[3:]
    assert {t.state.name for t in own} == {"COMPLETE"}
    assert len({tuple(t.params.values()) for t in own}) == 14


def test_a_parameter_outside_the_space_is_none_of_its_business() -> None:
    study = plain_study()

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        trial.suggest_float("other", 0, 1)
        return plain(trial)

    study.optimize(objective, n_trials=15)
    assert len({t.params["other"] for t in study.trials}) == 15
    assert {t.state.name for t in study.trials} == {"COMPLETE"}


def test_within_keeps_the_parameters_of_the_space() -> None:
    space = Space.parse(SPACE)
    own = {"student.width": 8, "student.kind": "a", "train.lr": 0.5}
    assert proposals.within(space, {**own, "other": 1}) == own
    assert proposals.within(space, own | {"train.lr": 1.5}) is None
    assert proposals.within(space, {"student.width": 8}) is None


def test_a_study_of_known_objectives_trains_every_candidate_to_the_top() -> None:
    study = names_study(["params", "latency_ms"])
    ad.search(study, evaluate=evaluate, costs=toys.costs, budget="14trials", workers=1)
    assert Counter(t.state for t in study.trials()) == {State.COMPLETE: 14}


def test_an_objective_that_only_the_top_rung_measures_is_learned() -> None:
    study = names_study(["accuracy", "energy:minimize:trained", "params"])

    def late(candidate: Any) -> Any:
        return evaluate(candidate, top_only="energy")

    ad.search(study, evaluate=late, costs=toys.costs, budget="18trials", workers=1)
    assert sum(t.state is State.COMPLETE for t in study.trials()) >= 3
    assert "energy" in study.trials()[-1].why


@pytest.mark.parametrize("lacking", [{}, {"params": 800.0}, None])
def test_a_student_whose_costs_are_not_known_does_no_harm(lacking) -> None:
    study = names_study(["accuracy", "params", "latency_ms"])

    def costs(student: Any) -> Any:
        return lacking if student["width"] == 8 else toys.costs(student)

    ad.search(study, evaluate=evaluate, costs=costs, budget="16trials", workers=1)
    assert study.spent.trials == 16
    assert len({t.student["width"] for t in study.front().trials}) >= 4


def test_unknown_costs_of_every_student_are_learned() -> None:
    study = names_study(["accuracy", "params"], levels=(1,))

    def full(candidate: Any) -> Any:
        return evaluate(candidate, levels=(1,))

    ad.search(study, evaluate=full, costs=lambda student: None, budget="14trials", workers=1)
    assert Counter(t.state for t in study.trials()) == {State.COMPLETE: 14}


def test_many_rungs_do_not_prolong_the_first_design() -> None:
    space = Space.parse({"student": {"width": list(range(1, 21))}})
    distributions = {p.name: p.distribution for p in space.parameters}
    levels = tuple(range(1, 28))
    study = optuna.create_study(directions=["maximize", "minimize"])
    for width in range(1, 12):
        curve = {f"rung:{k}": {"accuracy": 1 - 1 / (width + k), "epochs": k} for k in levels}
        trial = optuna.trial.create_trial(
            params={"student.width": width}, distributions=distributions, user_attrs=curve,
            values=[1 - 1 / (width + levels[-1]), width],
        )  # fmt: skip
        study.add_trial(trial)
    front = FrontSampler(
        space, resolve(["accuracy", "params"]), costs=lambda student: {"params": student["width"]}, rungs=levels
    )
    front.propose(study)
    assert "may add" in front.last_explanation


def test_a_space_that_is_nearly_empty_is_not_called_exhausted() -> None:
    space = {"student": {"width": {"low": 1, "high": 4000}, "depth": {"low": 1.0, "high": 8.0}}}
    study = names_study(
        ["accuracy", "params"], levels=(1,), space=space, constraints=(Constraint("params", "<=", 800.0),)
    )

    def grown(candidate: Any) -> Any:
        yield Report(0, {"params": candidate.student["width"] * 100.0})
        yield Report(1, {"accuracy": 0.5 + 0.001 * candidate.student["width"]}, 1, 0.1)

    price = lambda student: {"params": student["width"] * 100.0}  # noqa: E731
    ad.search(study, evaluate=grown, costs=price, budget="13trials", workers=1)
    assert sum(t.state is State.COMPLETE for t in study.trials()) == 13


def test_what_was_refused_for_want_of_time_is_proposed_again_by_a_later_call() -> None:
    space = Space.parse({"student": {"width": [4, 8, 16]}})
    distribution = {p.name: p.distribution for p in space.parameters}
    study = optuna.create_study(directions=["maximize", "minimize"])
    for width, reason in ((4, ""), (8, "TIME"), (16, "INFEASIBLE")):
        trial = optuna.trial.create_trial(
            params={"student.width": width}, distributions=distribution, user_attrs={"reason": reason},
            state=optuna.trial.TrialState.PRUNED,
        )  # fmt: skip
        study.add_trial(trial)
    front = FrontSampler(space, costs=lambda student: {"params": float(student["width"])})
    assert front.propose(study) == {"student.width": 8}


def test_threads_of_optuna_share_one_sampler_and_one_parameter_is_a_space() -> None:
    space = Space.parse({"student": {"width": {"values": list(range(40))}}})
    front = FrontSampler(space, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=front)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        width = trial.suggest_categorical("student.width", list(range(40)))
        return 1.0 - 1.0 / (1 + width), float(width)

    study.optimize(objective, n_trials=24, n_jobs=4)
    assert [t.state for t in study.trials] == [optuna.trial.TrialState.COMPLETE] * 24
    assert len(front._chosen) == 0
