from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from toys import LEVELS, accuracy, costs, evaluate, make_study

import autodistill as ad
from autodistill.core.errors import InterruptedTrialError
from autodistill.core.records import Candidate, Decision, Report, State, TrialRecord
from autodistill.engines.driving.prefetch import PrefetchedCandidates
from autodistill.search.rungs.levels import Rungs
from autodistill.search.study import scheduler as scheduler
from autodistill.search.study.study import Study

WIDE = {"student": {"width": {"low": 4, "high": 256, "log": True}}, "train": {"lr": {"low": 0.1, "high": 1.0}}}

FEW = {"student": {"width": [4, 6, 8, 11, 16, 23, 32, 45, 64, 90, 128, 181, 256]}, "train": {"lr": [0.1]}}
"""Thirteen candidates, none better than the paused ones by its learning rate: new ones cannot take all that is left."""


def drive(study: Study, candidate: Candidate | None = None) -> Candidate:
    candidate = candidate or study.ask()
    assert candidate is not None
    for report in evaluate(candidate):
        if study.report(candidate, report) is Decision.STOP:
            break
    study.close(candidate)
    return candidate


def evaluate_anew(candidate: Candidate) -> Iterator[Report]:
    """Knows nothing of start rungs: every evaluation begins at rung 0."""
    known = costs(candidate.student)
    yield Report(0, known)
    for rung, epochs in enumerate(LEVELS, 1):
        yield Report(rung, {"accuracy": accuracy(candidate, epochs), **known}, epochs, 0.01 * rung)


@pytest.fixture(scope="module")
def searched() -> Study:
    study = make_study(space=FEW, sampler="front")
    ad.search(study, evaluate=evaluate_anew, costs=costs, budget="120epochs")
    return study


@pytest.mark.parametrize("sampler", ["front", "random"])
def test_the_first_trial_waits_at_the_first_rung_and_not_at_the_top(sampler: str) -> None:
    study = make_study(sampler=sampler)
    study.set_known_costs([], costs)
    with study.running("50trials"):
        drive(study)
    (record,) = study.trials()
    assert (record.state, record.reason, max(record.rungs)) == (State.PARTIAL, "PAUSED", 1)
    assert record.message.startswith("stopped at rung 1 (1 of 9 epochs): ")
    assert record.decisions[1] == (record.message,)


def test_the_model_says_what_a_paused_trial_may_add_and_what_promises_more(searched: Study) -> None:
    paused = [t for t in searched.trials() if "may add" in t.message]
    assert paused
    for t in paused:
        rung = max(t.rungs)
        assert t.message.startswith(f"stopped at rung {rung} ({LEVELS[rung - 1]} of 9 epochs): may add ")
        assert f" hypervolume for {LEVELS[-1] - LEVELS[rung - 1]:g} epochs more; " in t.message


def test_a_paused_trial_goes_on_under_its_own_number_and_says_why(searched: Study) -> None:
    later = [t for t in searched.trials() if any("goes on later" in w for ws in t.decisions.values() for w in ws)]
    assert later
    assert all("attempts" not in searched._log.attributes(t.number) for t in searched.trials())
    complete = [t for t in searched.trials() if t.state is State.COMPLETE]
    assert complete
    assert all(t.values["accuracy"] == accuracy(_candidate(t), 9) for t in complete)
    assert all(t.decisions[3] == ("reached the top rung (9 epochs)",) for t in complete)


def test_an_evaluation_that_begins_anew_is_charged_once(searched: Study) -> None:
    assert searched.spent.epochs == sum(t.epochs for t in searched.trials())
    assert searched.spent.epochs <= 120
    assert all(t.epochs == LEVELS[max(t.rungs) - 1] for t in searched.trials() if t.epochs)


def test_a_rung_that_was_reported_is_neither_stored_nor_charged_again() -> None:
    study = make_study(sampler="front")
    study.set_known_costs([], costs)
    with study.running("1trials"):
        candidate = study.ask()
        assert candidate is not None
        reports = list(evaluate(candidate))
        study.report(candidate, reports[0])
        study.report(candidate, reports[1])
        study.close(candidate, InterruptedTrialError("stop"))
    with study.running("1trials"):
        again = study.ask()
        assert again is not None
        assert again.start_rung == 1
        assert study.report(again, Report(0, {"params": 1.0, "latency_ms": 1.0})) is Decision.CONTINUE
        assert study.report(again, Report(1, {"accuracy": 0.0}, 1, 99.0)) is Decision.CONTINUE
        assert study.spent.epochs == 1
        assert study.trials()[0].rungs[1]["accuracy"] == reports[1].values["accuracy"]


def test_a_trial_counts_once_however_often_it_is_paused() -> None:
    study = make_study(space=WIDE, sampler="front")
    ad.search(study, evaluate=evaluate, costs=costs, budget="14trials")
    trials = study.trials()
    assert study.spent.trials == 14 == sum(t.reason not in ("DUPLICATE", "TIME") for t in trials)
    assert "14 trials" in study.ended
    assert any(len(ws) > 1 for t in trials for ws in t.decisions.values())
    assert len(study.front()) >= 1


def test_more_budget_goes_on_with_what_was_paused(tmp_path: Path) -> None:
    first = make_study(tmp_path, space=FEW, sampler="front")
    first.set_known_costs([], costs)
    with first.running("40epochs"):
        for _ in range(8):
            drive(first)
    assert [t.reason for t in first.trials()] == ["PAUSED"] * 8
    again = make_study(tmp_path, space=FEW, sampler="front")
    ad.search(again, evaluate=evaluate, costs=costs, budget="70epochs")
    assert any(t.epochs > 1 for t in again.trials()[:8])
    assert again.spent.trials == len(again.trials())


def test_a_killed_driver_loses_no_paused_trial_and_no_attempt(tmp_path: Path) -> None:
    first = make_study(tmp_path, space=WIDE, sampler="front")
    first.set_known_costs([], costs)
    with first.running("100trials"):
        for _ in range(3):
            drive(first)
        running = first.ask()
        assert running is not None
        first.report(running, next(iter(evaluate(running))))
    again = make_study(tmp_path, space=WIDE, sampler="front")  # the driver was killed: nothing was closed
    again.set_known_costs([], costs)
    with again.running("100trials"):
        taken = again.ask()
        assert taken is not None
        assert taken.number == running.number
        assert sorted(again._scheduler.paused) == [0, 1, 2]
    assert [again._log.attributes(n).get("attempts", 1) for n in range(4)] == [1, 1, 1, 2]


def test_a_paused_trial_that_is_given_back_unbegun_is_paused_as_before() -> None:
    study = make_study(sampler="front")
    study.set_known_costs([], costs)
    with study.running("50trials"):
        ahead = PrefetchedCandidates(study, 2)
        while True:
            ahead.refill()
            taken = ahead._ready[0]
            if taken.start_rung:
                break
            drive(study, ahead.take())
        before = study.trials()[taken.number]
        ahead.give_back()
        after = study.trials()[taken.number]
        assert (before.state, after.state, after.reason) == (State.RUNNING, State.PARTIAL, "PAUSED")
        assert (after.rungs, after.message) == (before.rungs, before.message)
        spent = study.spent.trials
    with study.running("50trials"):
        assert study._scheduler.interrupted == []
        assert study._scheduler.paused[taken.number] == taken.start_rung
        assert study.spent.trials == spent


def test_interrupting_and_pausing_for_ever_uses_up_no_attempt() -> None:
    study = make_study()
    for _ in range(6):
        with study.running("5trials"):
            candidate = study.ask()
            assert candidate is not None
            assert study.close(candidate, InterruptedTrialError("Ctrl-C")) is State.PARTIAL
    assert [(t.number, t.reason) for t in study.trials()] == [(0, "INTERRUPTED")]
    assert "attempts" not in study._log.attributes(0)


def test_the_number_of_open_paused_trials_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MAX_PAUSED", 5)
    monkeypatch.setattr(scheduler, "SLACK", 2)
    study = make_study(space=WIDE, sampler="front")
    kept: list[int] = []
    discarded: list[int] = []
    study.after = lambda number, state: discarded.append(number) if state is State.PRUNED else None
    study.set_known_costs([], costs)
    with study.running("30trials"):
        while (candidate := study.ask()) is not None:
            drive(study, candidate)
            kept.append(len(study._scheduler.paused))
    assert max(kept[12:]) <= 7
    settled = [t for t in study.trials() if "promise more" in t.message and t.state is State.PRUNED]
    assert settled
    assert {t.number for t in settled} <= set(discarded)
    assert all("for good" in t.decisions[max(t.rungs)][-1] for t in settled)


@pytest.mark.parametrize("sampler", ["front", "random", "tpe"])
def test_an_exhausted_space_continues_what_was_paused(sampler: str) -> None:
    space = {"student": {"width": [4, 8, 16]}, "train": {"lr": [0.5]}}
    study = make_study(space=space, sampler=sampler)
    study.set_known_costs([], costs)
    with study.running():
        while (candidate := study.ask()) is not None:
            drive(study, candidate)
    assert "space exhausted" in study.ended
    tried = [t for t in study.trials() if t.epochs]
    assert sorted(t.student["width"] for t in tried) == [4, 8, 16]
    assert sum(t.state is State.COMPLETE for t in tried) == (3 if sampler == "front" else len(study.front()))
    assert len(study.front()) >= 1


def test_nothing_promising_ends_the_search_cleanly() -> None:
    study = make_study(sampler="front", rungs=Rungs(LEVELS))
    study.set_known_costs([], costs)
    with study.running("3trials"):
        for _ in range(3):
            drive(study)
        while (candidate := study.ask()) is not None:
            drive(study, candidate)
        assert study.ask() is None
        assert study.ask() is None
    assert all(t.state in (State.COMPLETE, State.PARTIAL) for t in study.trials())
    assert all(t.reason in ("", "PAUSED") for t in study.trials())


def test_without_stopping_every_trial_trains_to_the_top() -> None:
    study = make_study(sampler="front", rungs=Rungs(LEVELS, stopping=False))
    ad.search(study, evaluate=evaluate, costs=costs, budget="4trials")
    assert [t.state for t in study.trials()] == [State.COMPLETE] * 4


def test_spawned_workers_take_up_what_others_paused(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler="random")
    ad.search(study, evaluate=evaluate, costs=costs, budget="12trials", workers=2)
    assert study.spent.epochs == sum(t.epochs for t in study.trials())
    assert any(w.startswith("goes on later") for t in study.trials() for ws in t.decisions.values() for w in ws)
    assert len(study.front()) >= 1


def test_records_say_why_in_json(searched: Study) -> None:
    data = json.loads(json.dumps([t.to_json() for t in searched.trials()]))
    assert "first design, 1 of 8" in data[0]["why"]
    assert all(isinstance(words, list) for t in data for words in t["decisions"].values())


def _candidate(t: TrialRecord) -> Candidate:
    return Candidate(t.number, t.student, t.distillation, t.train, t.seed)
