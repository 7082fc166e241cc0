from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from toys import evaluate, evaluate_slowly, make_study

import autodistill as ad
from autodistill.core.records import Candidate, State
from autodistill.engines.driving.prefetch import PrefetchedCandidates, depth
from autodistill.engines.monitor.watch import Watch
from autodistill.search.study.study import Study


def test_proposals_are_kept_ready_only_where_workers_would_wait_for_them() -> None:
    assert depth(1, 10.0, 1.0) == 0  # one worker learns from every result
    assert depth(2, 0.2, 60.0) == 0  # long trials: fresh proposals are worth more than 0.3 % of a worker
    assert depth(8, 0.5, 10.0) == 2  # 0.4 workers end while one proposal is made
    assert depth(64, 0.1, 5.0) == 4
    assert depth(64, 5.0, 5.0) == 64


def test_an_idle_driver_prefetches_candidates_for_free_workers() -> None:
    study = make_study()
    with study.running("9trials"):
        ahead = PrefetchedCandidates(study, 4)
        assert not ahead.wanted  # nothing is known about the trials yet
        first = ahead.take()
        assert first is not None
        ahead.ended(first)  # after no time at all
        while ahead.wanted:
            ahead.refill()
        assert len(ahead) == 4
        assert [one.number for one in (ahead.take(), ahead.take()) if one] == [first.number + 1, first.number + 2]
        ahead.give_back()
        assert len(ahead) == 0
    assert [(t.state, t.reason) for t in study.trials()][-1] == (State.PARTIAL, "INTERRUPTED")


def test_no_candidate_is_proposed_beyond_the_budget() -> None:
    study = make_study()
    with study.running("5trials"):
        ahead = PrefetchedCandidates(study, 8)
        first = ahead.take()
        assert first is not None
        ahead.ended(first)
        while ahead.wanted:
            ahead.refill()
        assert (len(ahead), ahead.dry) == (4, True)
        ahead.give_back()


def slow_asking(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    ask: Callable[[Study], Candidate | None] = Study.ask

    def slow(study: Study) -> Candidate | None:
        time.sleep(seconds)
        return ask(study)

    monkeypatch.setattr(Study, "ask", slow)


def test_with_slow_proposals_the_engine_still_runs_every_trial_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_asking(monkeypatch, 0.03)
    study = make_study()
    ad.search(study, evaluate=evaluate_slowly, budget="15trials", workers=2)
    trials = study.trials()
    assert [t.number for t in trials] == list(range(len(trials)))
    assert all(t.state in (State.COMPLETE, State.PRUNED) for t in trials)
    assert study.spent.trials == 15


def test_what_waits_when_the_search_is_stopped_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_asking(monkeypatch, 0.03)
    study, ended = make_study(), []

    def stop(watch: Watch, study: Study, worker: int = 0) -> None:
        ended.append(worker)
        if len(ended) == 6:
            watch.stop()

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "ended", stop)
        ad.search(study, evaluate=evaluate_slowly, budget="40trials", workers=2)
    assert all(t.state is not State.RUNNING for t in study.trials())
    waiting = [t.number for t in study.trials() if t.state is State.PARTIAL]
    assert waiting
    ad.search(study, evaluate=evaluate, budget="40trials", workers=1)
    assert all(study.trials()[number].state in (State.COMPLETE, State.PRUNED) for number in waiting)


def test_snapshots_take_no_more_than_a_twentieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    study, calls = make_study(), []
    ad.search(study, evaluate=evaluate, budget="3trials")

    def slow(snapshot: object) -> None:
        calls.append(time.monotonic())
        time.sleep(0.02)

    watch, started = Watch(slow, study), time.monotonic()
    while time.monotonic() - started < 1.0:
        watch.ended()
        time.sleep(0.001)
    assert 1 <= len(calls) <= 3
