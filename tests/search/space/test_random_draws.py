from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from toys import make_study

import autodistill as ad
from autodistill.core.records import Candidate, Constraint, Report, State
from autodistill.search.rungs.levels import Rungs
from autodistill.search.sampler.proposer import DRAWN
from autodistill.search.space import random_draws as within
from autodistill.search.space.space import Space

CUBE = {"student": {f"w{i}": {"low": 1, "high": 100} for i in range(3)}}
BOUND = Constraint("params", "<=", 3000.0)
"""Kept by 5.6 % of the cube."""


def volume(student: Any) -> dict[str, float]:
    return {"params": float(student["w0"] * student["w1"] * student["w2"]), "latency_ms": 1.0}


def train(candidate: Candidate) -> Any:
    known = volume(candidate.student)
    yield Report(0, known)
    yield Report(1, {"accuracy": candidate.student["w0"] / 200, **known}, 1)


@pytest.mark.parametrize("sampler", ["random", "nsga2", "qmc", "tpe"])
def test_a_tight_bound_neither_ends_the_search_nor_fills_the_storage(sampler: str) -> None:
    study = make_study(space=CUBE, sampler=sampler, constraints=(BOUND,), rungs=Rungs.off(1))
    ad.search(study, evaluate=train, costs=volume, budget="40trials", workers=1, progress=False)
    trials = study.trials()
    trained = [t for t in trials if t.state is State.COMPLETE]
    assert (len(trained), study.ended) == (40, "budget of 40 trials is spent")
    assert all(t.values["params"] <= 3000 for t in trained)
    assert Counter(t.reason for t in trials)["INFEASIBLE"] == len(trials) - 40 <= within.TRIES * 40
    drawn = [t for t in trained if t.why == DRAWN]
    assert drawn
    assert {t.why for t in trained} <= {DRAWN, ""}
    for t in drawn:
        before = [other.reason for other in trials[t.number - within.TRIES : t.number]]
        assert before == ["INFEASIBLE"] * within.TRIES


def test_a_bound_that_no_student_keeps_ends_the_search_with_advice() -> None:
    study = make_study(space=CUBE, constraints=(Constraint("params", "<=", 0.5),), rungs=Rungs.off(1))
    ad.search(study, evaluate=train, costs=volume, budget="40trials", workers=1, progress=False)
    assert [t.reason for t in study.trials()] == ["INFEASIBLE"] * within.TRIES
    assert study.ended.startswith("none of 10,000 random candidates is within the bounds (params <= 0.5); loosen")


def test_the_last_candidates_of_a_finite_space_are_found_and_then_it_is_exhausted() -> None:
    space = {"student": {"w0": list(range(1, 11)), "w1": list(range(1, 11)), "w2": [1]}}
    study = make_study(space=space, constraints=(Constraint("params", "<=", 4.0),), rungs=Rungs.off(1))
    ad.search(study, evaluate=train, costs=volume, budget="40trials", workers=1, progress=False)
    trained = [(t.student["w0"], t.student["w1"]) for t in study.trials() if t.state is State.COMPLETE]
    assert sorted(trained) == [(a, b) for a in range(1, 11) for b in range(1, 11) if a * b <= 4]
    assert study.ended.startswith("space exhausted: ")
    assert study.ended.endswith("and none of the others is within the bounds (params <= 4)")
    assert len(study.trials()) < 60


def test_costs_known_only_from_the_evaluation_may_break_a_tight_bound_many_times() -> None:
    study = make_study(space=CUBE, constraints=(Constraint("params", "<=", 1000.0),), rungs=Rungs.off(1))
    ad.search(study, evaluate=train, budget="6trials", workers=1, progress=False)
    in_a_row = max(map(len, "".join("x" if t.reason else " " for t in study.trials()).split()))
    assert in_a_row > 50
    assert (study.spent.trials, study.ended) == (6, "budget of 6 trials is spent")


def test_a_draw_is_uniform_among_new_candidates_and_reports_why_others_were_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = Space.parse({"student": {"width": [1, 2, 3, 4]}})

    def refusal(values: dict[str, Any]) -> str:
        return {1: "DUPLICATE", 2: "INFEASIBLE"}.get(values["student.width"], "")

    found = Counter(within.draw_feasible(space, (BOUND,), refusal, seed)[0]["student.width"] for seed in range(400))  # type: ignore[index]
    assert set(found) == {3, 4}
    assert 150 < found[3] < 250
    assert within.draw_feasible(space, (), lambda values: "DUPLICATE", 0) == (
        None,
        "space exhausted: 80 random candidates were all tried before",
    )
    why = within.draw_feasible(space, (), lambda values: "INFEASIBLE_BUILD", 0)[1]
    assert why.startswith("none of 80 random candidates can be built; ")
    monkeypatch.setattr(within, "SECONDS", 0.0)
    assert within.draw_feasible(space, (BOUND,), refusal, 0)[0] is None
