"""Every engine runs the same closed-form study to the same invariants."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import LEVELS, accuracy, evaluate, evaluate_or_die, evaluate_or_fail, make_study

import autodistill as ad
from autodistill.errors import UsageError
from autodistill.records import Candidate, State

WORKERS = [pytest.param("local", 1, id="local-1"), pytest.param("local", 2, id="local-2")]


@pytest.mark.parametrize(("engine", "workers"), WORKERS)
def test_every_trial_ends_once_with_the_values_of_the_formula(engine: str, workers: int, tmp_path: Path) -> None:
    study = make_study(tmp_path)
    front = ad.search(study, evaluate=evaluate, budget="12trials", workers=workers, engine=engine)
    trials = study.trials()
    assert [t.number for t in trials] == list(range(len(trials)))
    assert sum(t.reason not in ("DUPLICATE", "INFEASIBLE") for t in trials) == 12
    assert all(t.state in (State.COMPLETE, State.PRUNED) for t in trials)
    for t in trials:
        if t.state is State.COMPLETE:
            candidate = Candidate(t.number, t.student, t.distillation, t.train, t.seed)
            assert t.values["accuracy"] == accuracy(candidate, LEVELS[-1])
    assert len(front) >= 1
    assert {p.name for p in tmp_path.iterdir()} >= {"study.db", "front.json", "front.csv", "front.png"}


@pytest.mark.parametrize(("engine", "workers"), WORKERS)
def test_failures_end_their_trials_and_not_the_search(engine: str, workers: int) -> None:
    study = make_study()
    ad.search(study, evaluate=evaluate_or_fail, budget="25trials", workers=workers, engine=engine)
    by_width = {t.student["width"]: t for t in study.trials()}
    assert by_width[4].reason == "INFEASIBLE_BUILD"
    assert by_width[8].reason == "NON_FINITE"
    assert by_width[16].reason == "OOM"
    assert (by_width[32].reason, by_width[32].message) == ("ERROR", "RuntimeError: a bug in the user's code")
    assert all(t.state is not State.RUNNING for t in study.trials())


def test_a_dead_worker_fails_its_trial_and_is_replaced() -> None:
    study = make_study()
    ad.search(study, evaluate=evaluate_or_die, budget="12trials", workers=2)
    lost = [t for t in study.trials() if t.student["width"] == 32]
    assert lost
    assert all((t.state, t.reason) == (State.FAIL, "WORKER_LOST") and "exit code 7" in t.message for t in lost)
    assert any(t.state is State.COMPLETE for t in study.trials())


def test_a_function_that_cannot_be_sent_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="top level of a module"):
        ad.search(make_study(), evaluate=lambda candidate: iter(()), budget="2trials", workers=2)
