"""The warning that the time left holds no full training."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console
from toys import evaluate, make_study

import autodistill as ad
from autodistill.commands.search_run import _why_empty
from autodistill.core.records import Constraint, Decision, State
from autodistill.engines.monitor import budget_warning as shortage
from autodistill.engines.monitor.budget_warning import BudgetWarning, BudgetWatch
from autodistill.engines.monitor.progress import Progress, panel
from autodistill.engines.monitor.watch import Snapshot, Watch
from autodistill.engines.monitor.worker_line import WorkerLine
from autodistill.search.study.scheduler import Prospect

NOTHING = Prospect(100.0)


def line(number: int, epoch: float, epochs: float = 100.0) -> WorkerLine:
    return WorkerLine(number, "resnet", epoch, epochs)


def test_the_nearest_training_says_what_is_needed_and_what_would_fit() -> None:
    budget_watch = BudgetWatch()
    for second in range(11):  # one epoch in ten seconds, and one in five
        budget_watch.note(line(0, 0.1 * second), 1000.0 + second)
        budget_watch.note(line(1, 0.2 * second), 1000.0 + second)
    short = budget_watch.shortage([line(0, 1.0), line(1, 2.0)], 30.0, 90.0, NOTHING)
    assert short is not None
    assert short.needed == pytest.approx(98 / 0.2)
    # 30 s are spent, and four times 100 epochs at 0.2 a second: 2,030 s, up to five minutes
    assert short.budget == 35 * 60
    assert short.fewer == 5  # 100 s hold 20 epochs, four trainings of 5
    assert "#1" in short.words()
    assert "9m and 1m 30s are left" in short.words()
    assert short.advice() == "use about --budget 35m, or about --epochs 5 in a new study"


@pytest.mark.parametrize(("left", "expected"), [(244.0, True), (246.0, False)])
def test_no_warning_appears_unless_every_training_needs_twice_the_budget_left(left: float, expected: bool) -> None:
    budget_watch = BudgetWatch()
    for second in (0.0, 10.0):
        budget_watch.note(line(0, 0.2 * second), second)
        budget_watch.note(line(1, 0.1 * second), second)
    assert (budget_watch.shortage([line(0, 2.0), line(1, 1.0)], 10.0, left, NOTHING) is not None) is expected


@pytest.mark.parametrize(
    ("prospect", "left", "who"),
    [
        (
            Prospect(100.0, epoch=0.5),
            40.0,
            "",
        ),  # 50 s for the cheapest, and the first trials may be slower than later ones
        (Prospect(100.0, epoch=0.5), 30.0, "even the cheapest student needs about 50s and 30s"),
        (Prospect(100.0, epoch=0.5, paused=20.0), 30.0, ""),
        (Prospect(100.0, epoch=0.5, paused=20.0), 12.0, "the paused trial closest to its end needs about 20s and 12s"),
    ],
)
def test_what_could_be_trained_instead_counts_too(prospect: Prospect, left: float, who: str) -> None:
    budget_watch = BudgetWatch()
    for second in (0.0, 10.0):
        budget_watch.note(line(0, 0.2 * second), second)
    found = budget_watch.shortage([line(0, 2.0)], 20.0, left, prospect)
    assert who in ("" if found is None else found.words())
    assert (found is None) is (not who)
    if found is not None:
        assert found.budget == 240  # 20 s are spent, and four times 100 epochs in half a second each
        assert found.words().endswith("the front may stay empty")


def test_an_expensive_first_design_is_no_shortage_while_a_cheap_surveyed_student_fits() -> None:
    study, seen = make_study(), list[Snapshot]()
    students = [({"width": width}, {"latency_ms": width / 10, "params": 100.0 * width}) for width in (4, 128)]
    study.set_known_costs(students)
    study.enqueue({"student": {"width": 128}, "train": {"lr": 0.5}})
    with study.running("100s"):
        candidate = study.ask()
        assert candidate is not None
        study.report(candidate, next(evaluate(candidate)))
        watch = Watch(seen.append, study, interval=0.0)
        clock = iter((0.0, 10.0))
        budget_watch = watch._budget_watch
        for epoch in (0.0, 0.1):  # 100 s an epoch: 900 s to the top, and 1/32 of it with the smallest student
            budget_watch.note(line(candidate.number, epoch, 9.0), next(clock))
        rates = budget_watch.rates()
        assert study.prospect(rates).epoch == pytest.approx(100 / 32)
        lines = [line(candidate.number, 0.1, 9.0)]
        assert budget_watch.shortage(lines, 1.0, 99.0, study.prospect(rates)) is None
        assert budget_watch.shortage(lines, 1.0, 99.0, Prospect(9.0)) is not None
        assert budget_watch.shortage(lines, 88.0, 12.0, study.prospect(rates)) is not None
        assert budget_watch.shortage([], 88.0, 12.0, study.prospect(rates)) is not None  # between two trials
        assert budget_watch.shortage([], 88.0, 12.0, NOTHING) is None
        assert budget_watch.shortage([], 1.0, 99.0, study.prospect(rates), over=True) is not None  # says what would do


def test_a_speed_needs_time_and_a_training_of_unknown_speed_may_be_fast_enough() -> None:
    budget_watch = BudgetWatch()
    budget_watch.note(line(0, 0.0), 0.0)
    budget_watch.note(line(0, 0.4), 4.0)
    assert budget_watch.speed(0) is None
    budget_watch.note(line(0, 0.6), 6.0)
    assert budget_watch.speed(0) == pytest.approx(0.1)
    assert budget_watch.shortage([line(0, 0.6)], 6.0, 10.0, NOTHING) is not None
    budget_watch.note(line(1, 0.0), 6.0)
    assert budget_watch.shortage([line(0, 0.6), line(1, 0.0)], 6.0, 10.0, NOTHING) is None
    budget_watch.forget(0)
    assert budget_watch.speed(0) is None


def test_what_is_spent_stays_spent_and_more_epochs_than_now_are_no_help() -> None:
    budget_watch = BudgetWatch()
    for second in (0.0, 80.0):  # 80 of the 90 s that are spent went into 160 epochs, none of them to the top
        budget_watch.note(line(0, 2 * second, 30.0), second)
    budget_watch.forget(0)
    short = budget_watch.shortage([], 90.0, 0.0, Prospect(30.0, epoch=0.25), over=True)
    assert short is not None
    # four times 30 epochs in a quarter of a second each are 30 s; 80 s would have held four trainings of 80 epochs
    assert (short.budget, short.fewer) == (120.0, 0)
    assert short.advice() == "use about --budget 2m"


def test_nothing_is_advised_that_does_not_fit() -> None:
    short = BudgetWarning("#0", 9.0, 1e6, 5.0, budget=5400.0, fewer=0)
    assert short.advice() == "use about --budget 1h30m"


def test_the_warning_is_printed_once_and_taken_back_when_the_front_has_a_student() -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=200))
    short = BudgetWarning("#3", 100.0, 900.0, 60.0, budget=1800.0, fewer=10)
    for _ in range(2):
        progress(Snapshot("search", shortage=short))
    assert out.getvalue().count("warning: no full training of 100 epochs is expected to finish: #3") == 1
    assert progress.shortage is short
    progress(Snapshot("search", states={"COMPLETE": 1}))
    assert progress.shortage is None


def test_the_panel_of_a_terminal_has_a_row_for_it() -> None:
    out = io.StringIO()
    short = BudgetWarning("#3", 100.0, 900.0, 60.0, budget=1800.0, fewer=10)
    Console(file=out, width=220).print(panel(Snapshot("search", shortage=short)))
    assert "the front may stay empty; use about --budget 30m" in out.getvalue()


def test_an_empty_front_names_its_reason() -> None:
    bound = Constraint("accuracy", ">=", 0.9999)
    study = make_study(constraints=(bound,))
    short = BudgetWarning("#3", 100.0, 900.0, 60.0, budget=1800.0, fewer=10)
    assert "the teacher used up the budget" in _why_empty(study, [], None)
    ad.search(study, evaluate=evaluate, budget="5m,6trials")
    stopped = study.trials()[:1]
    stopped = [replace(t, state=State.PRUNED) for t in stopped]
    # the same budget as the command that goes on
    assert "no trial reached the top rung; use about --budget 30m,12trials, or" in _why_empty(study, stopped, short)
    assert "fewer --epochs in a new study" in _why_empty(study, stopped, None)
    assert len(study.front()) == 0
    assert f"reached the top rung, and none satisfies {bound}" in _why_empty(study, study.trials(), None)


def test_snapshots_carry_it_until_a_training_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortage, "LISTEN", 0.0)
    study, seen = make_study(), list[Snapshot]()
    with study.running("1h"):
        watch = Watch(seen.append, study, interval=0.0)
        for epoch in (0.0, 1e-6):
            watch.progress(line(0, epoch))
            time.sleep(0.01)
        assert seen[0].shortage is None
        assert seen[-1].shortage is not None
        while not len(study.front()):
            candidate = study.ask()
            assert candidate is not None
            for report in evaluate(candidate):
                if study.report(candidate, report) is Decision.STOP:
                    break
            study.close(candidate)
        watch.update()
    assert seen[-1].workers
    assert seen[-1].shortage is None
