from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from toys import LEVELS, accuracy, costs, make_study

import autodistill as ad
from autodistill.core.budget import Budget, format_seconds
from autodistill.core.records import Candidate, Decision, Estimate, Params, Report, State
from autodistill.delivery.report import tables as report_tables
from autodistill.engines.driving.slots import Slot
from autodistill.search.objectives.objectives import parse_constraint
from autodistill.search.rungs.levels import Rungs
from autodistill.search.study.scheduler import TOO_LITTLE, RemainingBudget
from autodistill.search.study.study import MAX_LATE, Study

WIDE = {"student": {"width": {"low": 4, "high": 256, "log": True}}, "train": {"lr": {"low": 0.1, "high": 1.0}}}


def seconds_per_epoch(width: float) -> float:
    return 0.05 * width


def timed(candidate: Candidate) -> Iterator[Report]:
    """Says that training takes longer the wider the student is; the time passes in the reports only."""
    known = costs(candidate.student)
    yield Report(0, known)
    for rung, epochs in enumerate(LEVELS, 1):
        if rung > candidate.start_rung:
            seconds = epochs * seconds_per_epoch(candidate.student["width"])
            yield Report(rung, {"accuracy": accuracy(candidate, epochs), **known}, epochs, seconds)


@pytest.mark.parametrize("sampler", ["front", "random"])
def test_nothing_is_begun_that_the_time_left_cannot_finish(sampler: str) -> None:
    study = make_study(space=WIDE, sampler=sampler)
    ad.search(study, evaluate=timed, costs=costs, budget=Budget(device_seconds=150.0))
    trials = study.trials()
    assert study.spent.device_seconds == pytest.approx(sum(t.seconds for t in trials))
    assert 75.0 < study.spent.device_seconds < 160.0  # predictions are not exact
    assert len(study.front()) >= 1
    assert not [t for t in trials if t.state is State.RUNNING]
    refused = [t for t in trials if t.reason == "TIME"]
    assert all("to the top rung" in t.message and t.epochs == 0 for t in refused)


@pytest.mark.parametrize(
    ("slots", "each"), [((Slot(0, devices=("cpu", "cpu")),), 2.0), ((Slot(0, "cuda:0"),) * 4, 0.25)]
)
def test_device_time_counts_the_devices_of_a_trial(
    slots: tuple[Slot, ...], each: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("autodistill.api.make_slots", lambda *args, **settings: slots)
    study = make_study(tmp_path, space=WIDE)
    ad.search(study, evaluate=timed, costs=costs, budget="6trials", progress=False)
    work = sum(t.seconds for t in study.trials())
    assert study.spent.device_seconds == pytest.approx(each * work)
    assert work > 0
    again = make_study(tmp_path, space=WIDE)  # as those who read it see it
    assert (again.devices, again.spent) == (each, study.spent)
    table = report_tables.cost_table(report_tables.cost_facts(again, None, None), again.trials())
    assert not [row for row in table.rows if row[0] == "other work of the workers"]
    assert {row[0]: row[1] for row in table.rows}["search, all device time"] == format_seconds(each * work)


def test_with_a_budget_in_time_the_sampler_pays_in_predicted_seconds() -> None:
    study = make_study(space=WIDE, sampler="front")
    ad.search(study, evaluate=timed, costs=costs, budget=Budget(device_seconds=100.0))
    with study.running(Budget(device_seconds=200.0)):
        small, large = (study._proposer._epoch_cost({"student.width": w, "train.lr": 0.5}) for w in (8, 64))
    assert 3.0 < large / small < 12.0  # 8 in truth
    with study.running(Budget(epochs=10_000)):
        assert study._proposer._epoch_cost({"student.width": 8, "train.lr": 0.5}) == 1.0


def test_an_estimated_cost_is_enough_to_refuse_what_does_not_fit_in_time() -> None:
    def guessed(student: Params) -> dict[str, float]:
        return {"latency_ms": Estimate(float(student["width"]), 0.05)}

    study = make_study(space=WIDE, sampler="random")
    study.set_known_costs([], guessed)
    with study.running("5trials"):
        for number, width in enumerate((8, 32, 128)):  # one second per epoch and millisecond
            study._scheduler.epoch_time.learn(number, {"latency_ms": float(width)}, 1.0, float(width))
        proposal = study._proposer.propose()
        width = proposal.candidate.student["width"]
        seconds = study._scheduler.epoch_time.predict(proposal.costs)
        assert seconds == pytest.approx(width, rel=0.5)
        assert study._scheduler.too_slow(proposal.costs, RemainingBudget(seconds=5 * seconds)) != ""
        assert study._scheduler.too_slow(proposal.costs, RemainingBudget(seconds=50 * seconds)) == ""


def test_an_estimate_is_never_stored_as_if_it_had_been_measured() -> None:
    def guessed(student: Params) -> dict[str, float]:
        return {"params": 9e9, "latency_ms": Estimate(1.0, 0.05)}

    study = make_study(space=WIDE, sampler="random", constraints=[parse_constraint("params <= 1e6")])
    study.set_known_costs([], guessed)
    with study.running("2trials"):
        study.ask()
    refused = [t for t in study.trials() if t.reason == "INFEASIBLE"]
    assert refused
    assert all(t.rungs[0] == {"params": 9e9} for t in refused)


def test_before_anything_has_run_students_compare_by_what_is_known_of_them() -> None:
    study = make_study(space=WIDE, sampler="front")
    study.set_known_costs([], costs)
    with study.running(Budget(device_seconds=100.0)):
        small, large = (study._proposer._epoch_cost({"student.width": w, "train.lr": 0.5}) for w in (8, 64))
    assert large / small == costs({"width": 64})["latency_ms"] / costs({"width": 8})["latency_ms"]


def steps(candidate: Candidate, levels: tuple[int, ...]) -> Iterator[Report]:
    known = costs(candidate.student)
    yield Report(0, known)
    for rung, epochs in enumerate(levels, 1):
        if rung > candidate.start_rung:
            yield Report(rung, {"accuracy": accuracy(candidate, epochs), **known}, epochs, 10.0 * epochs)


def side_by_side(study: Study, budget: str, workers: int) -> None:
    """Workers that all report one rung, then all the next."""
    running: dict[int, tuple[Candidate, Iterator[Report]]] = {}
    with study.running(budget):
        while True:
            while len(running) < workers and (candidate := study.ask()) is not None:
                running[candidate.number] = candidate, steps(candidate, study.rungs.levels)
            if not running:
                return
            for number, (candidate, reports) in list(running.items()):
                if study.report(candidate, next(reports)) is Decision.STOP:
                    study.close(candidate)
                    del running[number]


@pytest.mark.parametrize("workers", [1, 8])
def test_without_rungs_no_number_of_workers_starts_more_than_the_budget_has_epochs_for(workers: int) -> None:
    study = make_study(rungs=Rungs.off(9))
    side_by_side(study, "20epochs", workers)
    assert [(t.state, t.epochs) for t in study.trials()] == [(State.COMPLETE, 9)] * 2
    assert (study.spent.epochs, study.ended) == (18, TOO_LITTLE)


@pytest.mark.parametrize("budget", [20, 60])
@pytest.mark.parametrize("sampler", ["front", "random"])
def test_eight_workers_keep_within_a_budget_of_epochs_and_finish_something(sampler: str, budget: int) -> None:
    study = make_study(sampler=sampler)
    study.set_known_costs([], costs)
    side_by_side(study, f"{budget}epochs", 8)
    assert budget / 2 < study.spent.epochs == sum(t.epochs for t in study.trials()) <= budget
    assert sum(t.state is State.COMPLETE for t in study.trials()) >= budget // 60 + 1


def test_where_no_new_candidate_would_be_done_in_time_a_paused_trial_that_would_goes_on() -> None:
    study = make_study(sampler="random")
    study.set_known_costs([], costs)
    side_by_side(study, "0.055gpu-hours", 1)  # 198 s; a training takes 90 s
    late = [t for t in study.trials() if t.reason == "TIME"]
    (finished,) = [t for t in study.trials() if t.state is State.COMPLETE]
    assert len(late) == MAX_LATE
    assert finished.number < late[0].number
    assert finished.decisions[2][-1] == "goes on later: no trial has come to the top yet"
    assert (study.spent.device_seconds, study.ended) == (160.0, TOO_LITTLE)


@pytest.mark.parametrize("each", [0.25, 2.0])
def test_a_budget_of_device_time_buys_less_work_of_trials_that_take_more_devices(each: float) -> None:
    one, other = make_study(sampler="random"), make_study(sampler="random")
    other.use_devices(each)
    for study, hours in ((one, 0.055), (other, 0.055 * each)):
        study.set_known_costs([], costs)
        side_by_side(study, f"{hours:.9f}gpu-hours", 1)
    assert (one.spent.device_seconds, other.spent.device_seconds) == (160.0, 160.0 * each)
    assert [(t.state, t.epochs) for t in other.trials()] == [(t.state, t.epochs) for t in one.trials()]


def test_seconds_that_are_kept_back_are_not_spent() -> None:
    study = make_study()
    study.keep_back(50.0)
    with study.running("60s"):
        assert 9.0 < study.seconds_left <= 10.0
        candidate = study.ask()
        assert candidate is not None
        reports = list(timed(candidate))
        study.report(candidate, reports[0])
        study.keep_back(60.0)
        assert study.seconds_left == 0.0
        assert study.report(candidate, reports[1]) is Decision.STOP
        assert study.close(candidate) is State.PARTIAL
        assert study.ask() is None
        assert study.ended == "time budget of 1m is spent, 1m of it reserved"
        study.keep_back(0.0)
        again = study.ask()
        assert again is None or again.number > candidate.number  # the interrupted one goes on with the next run
    assert study.trials()[0].reason == "BUDGET"


def test_a_given_candidate_that_had_no_time_waits_for_the_next_call() -> None:
    study = make_study(space=WIDE, rungs=Rungs((9,), stopping=False))
    for width in (4, 5, 6, 256):
        study.enqueue({"student": {"width": width}, "train": {"lr": 0.5}})

    def full(candidate: Candidate) -> Iterator[Report]:
        known = costs(candidate.student)
        yield Report(0, known)
        seconds = 9 * seconds_per_epoch(candidate.student["width"])
        yield Report(1, {"accuracy": accuracy(candidate, 9), **known}, 9, seconds)

    def of_256() -> list[str]:
        return [t.reason or t.state.value for t in study.trials() if t.student.get("width") == 256]

    ad.search(study, evaluate=full, costs=costs, budget=Budget(device_seconds=12.0))
    assert of_256() == ["TIME"]
    for budget in (14.0, 300.0):
        ad.search(study, evaluate=full, costs=costs, budget=Budget(device_seconds=budget))
    assert of_256() == ["TIME", "TIME", "COMPLETE"]
    assert repr(study).startswith("<Study 'toy': ")
