from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toys import LEVELS, evaluate
from toys import costs as both_costs

import autodistill as ad
from autodistill.core.errors import UsageError
from autodistill.core.records import Candidate, Report, State

SPACE: dict[str, Any] = {
    "student": {"width": {"low": 4, "high": 256, "log": True}},
    "train": {"lr": {"low": 0.1, "high": 1.0}},
}
KEYS: dict[str, Any] = {
    "objectives": ["accuracy", "params", "latency_ms"],
    "epochs": 9,
    "rungs": {"levels": list(LEVELS)},
    "seed": 3,
}


def costs(student: Any) -> dict[str, float]:
    return both_costs(student)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other") / "study"
    study = ad.Study.create(space=SPACE, sampler="random", directory=folder, **KEYS)
    ad.search(study, evaluate=evaluate, costs=costs, budget="40trials")
    assert len(study.front()) >= 3
    return folder


def create(other: Path, space: dict[str, Any] | None = None, **keys: Any) -> ad.Study:
    return ad.Study.create(**{**KEYS, "space": space or SPACE, "warm_start": [str(other)], **keys})


def test_the_front_of_the_other_study_is_tried_first_and_learned_from(other: Path) -> None:
    study = create(other)
    front = {(t.student["width"], t.train["lr"]) for t in ad.Study.open(other).front().trials}
    taken = min(6, len(front))
    assert study.notes == [f"warm start: {taken} of {len(front)} front students of {other} are tried first"]
    ad.search(study, evaluate=evaluate, costs=costs, budget="60epochs")
    trials = study.trials()
    assert {(t.student["width"], t.train["lr"]) for t in trials[:taken]} <= front
    assert all("enqueued" in t.why for t in trials[:taken])
    assert all(t.number < len(trials) and t.state is State.COMPLETE for t in study.front().trials)


def evaluate_two_forms(candidate: Candidate) -> Iterator[Report]:
    """Every student also has a form that is a little worse and much faster, so that both are on the front."""
    for report in evaluate(candidate):
        values = {**report.values, "latency_ms": report.values["latency_ms"] / 2}
        if report.rung == len(LEVELS):
            values["accuracy"] -= 0.001
            report = replace(report, variants={"int8": {"values": values}})
        yield report


def test_a_student_on_the_front_in_two_forms_is_tried_once(tmp_path: Path) -> None:
    old = ad.Study.create(space=SPACE, sampler="random", directory=tmp_path / "old", **KEYS)
    ad.search(old, evaluate=evaluate_two_forms, costs=costs, budget="40trials")
    forms = [(t.number, t.variant) for t in old.front().trials]
    trained = old.front().trained()
    assert len(forms) > len(trained) >= 3
    study = create(tmp_path / "old")
    taken = min(6, len(trained))
    assert study.notes[0].startswith(f"warm start: {taken} of {len(trained)} front students of ")
    ad.search(study, evaluate=evaluate_two_forms, costs=costs, budget=f"{taken}trials")
    widths = [t.student["width"] for t in study.trials()[:taken]]
    assert len(set(widths)) == taken
    assert set(widths) <= {t.student["width"] for t in trained.trials}
    assert all(t.reason != "DUPLICATE" for t in study.trials()[:taken])


def test_it_helps_at_equal_spend(other: Path) -> None:
    def best(study: ad.Study) -> float:
        ad.search(study, evaluate=evaluate, costs=costs, budget="30epochs")
        return max(t.values["accuracy"] for t in study.front().trials)

    cold = {**KEYS, "space": SPACE, "sampler": "random"}
    warm = [best(create(other, sampler="random", seed=seed)) for seed in range(3)]
    assert sum(warm) >= sum(best(ad.Study.create(**{**cold, "seed": seed})) for seed in range(3))


def test_nothing_of_the_other_study_is_on_the_front(other: Path) -> None:
    study = create(other)
    assert study.trials() == []
    assert len(study.front()) == 0
    assert study.spent.epochs == 0


def test_a_resumed_study_is_not_warmed_again(other: Path, tmp_path: Path) -> None:
    study = create(other, directory=tmp_path / "new")
    ad.search(study, evaluate=evaluate, costs=costs, budget="3trials")
    again = ad.Study.open(tmp_path / "new")
    assert again.notes == []
    waiting = sum(t.state.name == "WAITING" for t in again.optuna.trials)
    assert waiting + len(again.trials()) == study.optuna.user_attrs["warm_start"][str(other)]["enqueued"]


def test_a_space_that_overlaps_keeps_the_student_and_draws_the_rest(other: Path) -> None:
    space = {
        "student": SPACE["student"],
        "distillation": {"loss": ["none", "kd"]},
        "train": {"lr": {"low": 2.0, "high": 3.0}},
    }
    study = create(other, space=space)
    with study.running("1trials"):
        candidate = study.ask()
    assert candidate is not None
    assert candidate.student["width"] in {t.student["width"] for t in ad.Study.open(other).front().trials}
    assert 2.0 <= candidate.train["lr"] <= 3.0
    assert candidate.distillation["loss"] in ("none", "kd")


def test_a_space_without_its_students_is_refused(other: Path) -> None:
    with pytest.raises(UsageError, match="shares no student with this search space"):
        create(other, space={"student": {"depth": [1, 2]}})


def test_a_study_without_a_front_and_a_folder_that_is_none_are_refused(tmp_path: Path) -> None:
    empty = ad.Study.create(**KEYS, space=SPACE, directory=tmp_path / "empty")
    assert empty.directory is not None
    with pytest.raises(UsageError, match="has no front yet"):
        create(empty.directory)
    with pytest.raises(UsageError, match="is not a study"):
        create(tmp_path / "nothing")


def test_a_student_that_a_trial_has_measured_is_known_as_well_as_before(other: Path) -> None:
    """Trials report the study's metrics; what else the survey or the function says of a student stays known."""

    def more(student: Any) -> dict[str, float]:
        return {**costs(student), "macs": 7.0 * student["width"]}

    study = create(other, objectives=["accuracy", "params", "latency_ms"])
    study.set_known_costs([({"width": w}, more({"width": w})) for w in (5, 50, 100, 200)], more)
    with study.running("1trials"):
        candidate = study.ask()
        assert candidate is not None
        study.report(candidate, Report(0, {"params": 1.0, "latency_ms": 2.0}))
        assert study._proposer._lookup(candidate.student) == {
            "params": 1.0,
            "latency_ms": 2.0,
            "macs": 7.0 * candidate.student["width"],
        }
        again = study._proposer.front_sampler()._known_costs
        assert again.costs({"student.width": candidate.student["width"], "train.lr": 0.5}) is not None
