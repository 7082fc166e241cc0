from __future__ import annotations

import math

import pytest

from autodistill.core.budget import Budget, Spent
from autodistill.core.records import State, TrialRecord
from autodistill.search.rungs.epoch_time import EpochTime
from autodistill.search.rungs.levels import RungDecision, Rungs
from autodistill.search.rungs.promotion import Action, PausedTrial
from autodistill.search.study.scheduler import MAX_PAUSED, SLACK, TOO_LITTLE, RemainingBudget, Scheduler

COSTS = {"params": 100.0}


class Says:
    """A rule whose answers the test chooses."""

    def __init__(
        self, action: Action | None, finalists: tuple[int, ...] = (), verdict: RungDecision | None = None
    ) -> None:
        self.action, self.order, self.given = action, finalists, verdict
        self.asked = 0

    def verdict(self, number, rung):
        return self.given

    def next(self, paused, left):
        self.asked += 1
        return self.action

    def finalists(self, paused, *, few):
        return [n for n in self.order if n in paused]

    def lost(self, paused):
        return {}

    def standing(self, number):
        return PausedTrial(number, 0.01, 8.0, 0.001 * number)


NEW = Action(None, 1.0, "a new candidate promises more")


def make_scheduler(rule: Says, *, seconds_per_epoch: float = 0.0, waiting: dict[int, int] | None = None) -> Scheduler:
    out = Scheduler(Rungs((1, 3, 9)), EpochTime())
    out.rule = rule
    for number in range(3 if seconds_per_epoch else 0):
        out.epoch_time.learn(100 + number, COSTS, 1.0, seconds_per_epoch)
    for number, rung in (waiting or {}).items():
        out.pause(number, rung, COSTS)
    return out


def test_a_paused_trial_is_continued_when_the_rule_prefers_it():
    step = make_scheduler(Says(Action(4, 1.0, "promises most")), waiting={4: 1}).choose(RemainingBudget(), queued=False)
    assert (step.trial, step.why, step.nothing) == (4, "promises most", False)


def test_candidates_of_the_user_come_before_what_the_rule_prefers():
    rule = Says(Action(4, 1.0, "promises most"))
    assert make_scheduler(rule, waiting={4: 1}).choose(RemainingBudget(), queued=True).trial is None
    assert rule.asked == 0


def test_nothing_is_continued_that_cannot_reach_the_top_in_time():
    # 8 epochs of 2 s are left to the top: 16 s
    late = make_scheduler(Says(Action(4, 1.0, ""), (4,)), seconds_per_epoch=2.0, waiting={4: 1})
    assert late.choose(RemainingBudget(seconds=16.5), queued=False).trial == 4
    step = late.choose(RemainingBudget(seconds=15.5), queued=False)
    assert step.trial is None


def test_when_nothing_fits_the_search_ends_with_the_reason():
    step = make_scheduler(Says(None), seconds_per_epoch=2.0, waiting={4: 1}).choose(
        RemainingBudget(seconds=5.0), queued=False
    )
    assert step.nothing
    assert step.why == TOO_LITTLE
    step = make_scheduler(Says(NEW), waiting={4: 1}).choose(RemainingBudget(epochs=7.0), queued=False)
    assert step.nothing


def test_epochs_that_do_not_reach_the_top_start_nothing_new():
    assert make_scheduler(Says(NEW)).choose(RemainingBudget(epochs=9.0), queued=False).trial is None
    assert not make_scheduler(Says(NEW)).choose(RemainingBudget(epochs=9.0), queued=False).nothing
    assert make_scheduler(Says(NEW)).choose(RemainingBudget(epochs=8.9), queued=False).nothing
    step = make_scheduler(Says(NEW, (4,)), waiting={4: 2}).choose(RemainingBudget(epochs=8.9), queued=False)
    assert step.trial == 4


def test_the_end_of_the_budget_is_kept_for_the_finalists():
    waiting = {4: 1, 5: 1}  # 8 epochs each to the top; a new candidate's first rung takes 1
    rule = Says(NEW, (5, 4))
    assert make_scheduler(rule, waiting=waiting).choose(RemainingBudget(epochs=9.0), queued=False).trial is None
    assert make_scheduler(rule, waiting=waiting).choose(RemainingBudget(epochs=10.0), queued=False).trial is None
    step = make_scheduler(rule, waiting=waiting).choose(RemainingBudget(epochs=16.9, busy=1), queued=False)
    assert step.trial == 5
    assert "finalists" in step.why
    timed = make_scheduler(rule, seconds_per_epoch=1.0, waiting=waiting)
    assert timed.choose(RemainingBudget(seconds=9.0), queued=False).trial is None
    assert timed.choose(RemainingBudget(seconds=8.5), queued=False).trial == 5
    # two workers do the work of two finalists side by side
    assert timed.choose(RemainingBudget(seconds=9.0, busy=1), queued=False).trial is None
    assert timed.choose(RemainingBudget(seconds=8.5, busy=1), queued=False).trial == 5


def test_when_nothing_new_may_be_started_the_finalists_go_on_and_then_it_ends():
    closed = RemainingBudget(closed="budget of 9 trials is spent")
    assert make_scheduler(Says(NEW, (5,)), waiting={4: 2, 5: 2}).choose(closed, queued=True).trial == 5
    step = make_scheduler(Says(NEW), waiting={4: 2}).choose(closed, queued=True)
    assert step.nothing
    assert step.why == "budget of 9 trials is spent"


def test_a_decision_made_at_a_report_is_used_by_the_next_ask_and_only_once():
    rule = Says(NEW)
    scheduler = make_scheduler(rule)
    verdict = scheduler.after(7, 2, COSTS, RemainingBudget())
    assert not verdict.go_on
    assert verdict.why == (
        "stopped at rung 2 (3 of 9 epochs): may add 0.01 hypervolume for 6 epochs more; a new candidate promises more"
    )
    scheduler.pause(7, 2, COSTS)
    scheduler.choose(RemainingBudget(), queued=False)
    assert rule.asked == 1
    scheduler.choose(RemainingBudget(), queued=False)
    assert rule.asked == 2
    scheduler.after(8, 1, COSTS, RemainingBudget())
    scheduler.changed()
    scheduler.choose(RemainingBudget(), queued=False)
    assert rule.asked == 4


def test_with_a_time_budget_the_price_is_in_seconds():
    scheduler = make_scheduler(Says(Action(3, 1.0, "")), seconds_per_epoch=7.0, waiting={3: 2})
    why = scheduler.after(7, 2, COSTS, RemainingBudget(seconds=1000.0)).why
    assert "may add 0.01 hypervolume for 42s more; trial 3 promises more" in why


def test_the_decision_of_the_rule_holds_unless_time_is_too_short():
    going = make_scheduler(Says(NEW, verdict=RungDecision(True, "place 1 of 3")), seconds_per_epoch=1.0)
    assert (
        going.after(7, 1, COSTS, RemainingBudget(seconds=9.0)).why
        == "goes on from rung 1 (1 of 9 epochs): place 1 of 3"
    )
    assert not going.after(7, 1, COSTS, RemainingBudget(seconds=7.0)).go_on
    stopped = make_scheduler(Says(NEW, verdict=RungDecision(False, "place 3 of 3", final=True)))
    assert stopped.after(7, 1, COSTS, RemainingBudget()).final


def test_only_the_most_promising_keep_waiting():
    count = MAX_PAUSED + SLACK
    scheduler = make_scheduler(Says(NEW), waiting=dict.fromkeys(range(count), 1))
    assert scheduler.excess() == {}
    scheduler.pause(count, 1, COSTS)
    assert sorted(scheduler.excess()) == list(range(count + 1 - MAX_PAUSED))  # the lowest indices, by Says.standing


def test_a_candidate_too_slow_for_the_time_left_is_named_with_both_times():
    scheduler = make_scheduler(Says(NEW), seconds_per_epoch=10.0)
    assert scheduler.too_slow(COSTS, RemainingBudget(seconds=90.5)) == ""
    assert scheduler.too_slow(COSTS, RemainingBudget(seconds=60.0)) == "needs about 1m 30s to the top rung, 1m are left"
    assert make_scheduler(Says(NEW)).too_slow(COSTS, RemainingBudget(seconds=1e-3)) == ""  # nothing is known yet


def test_every_term_of_a_budget_is_parsed():
    spent = Spent(seconds=40.0, trials=3, epochs=50.0, device_seconds=70.0)
    remaining = RemainingBudget.of(Budget(seconds=100.0, trials=5), spent, 25.0, starting=1, busy=2, exhausted="")
    assert (remaining.seconds, remaining.epochs, remaining.closed, remaining.busy) == (35.0, math.inf, "", 2)
    remaining = RemainingBudget.of(Budget(trials=5, epochs=60.0), spent, 0.0, starting=2, busy=2, exhausted="")
    assert (remaining.seconds, remaining.epochs, remaining.closed, remaining.few) == (
        math.inf,
        10.0,
        "budget of 5 trials is spent",
        True,
    )
    device_time = Budget(device_seconds=100.0)
    two = RemainingBudget.of(
        device_time, spent, 0.0, starting=0, busy=1, exhausted="", committed=(5.0, 1.0), devices=2.0
    )
    assert two.seconds == 10.0  # a second of work takes two of device time
    remaining = RemainingBudget.of(device_time, spent, 0.0, starting=0, busy=0, exhausted="space exhausted")
    assert (remaining.seconds, remaining.closed, remaining.few) == (30.0, "space exhausted", False)


def test_what_running_trials_will_take_is_not_left_for_others():
    scheduler = make_scheduler(Says(NEW), seconds_per_epoch=2.0)
    running = [(4, 0, COSTS), (5, 1, COSTS), (6, 3, COSTS)]  # the last has come to the top and is about to end
    assert scheduler.committed(running) == (pytest.approx(6.0), 3.0)  # 1 epoch to rung 1, 2 to rung 2
    scheduler.pause(5, 1, COSTS)
    scheduler.rule = Says(NEW, (5,))
    assert scheduler.choose(RemainingBudget(closed="budget of 9 trials is spent"), queued=False).trial == 5
    assert scheduler.committed(running) == (pytest.approx(18.0), 9.0)  # a finalist goes on to the top: 8 epochs
    scheduler.rule = None
    assert scheduler.committed(running) == (pytest.approx(34.0), 17.0)  # 9 and 8 to the top: nothing stops them before
    spent = Spent(epochs=10.0, device_seconds=20.0)
    budget = Budget(epochs=30.0, device_seconds=60.0, seconds=50.0)
    remaining = RemainingBudget.of(budget, spent, 0.0, starting=0, busy=3, exhausted="", committed=(34.0, 17.0))
    assert (remaining.seconds, remaining.epochs) == (6.0, 3.0)
    assert (
        RemainingBudget.of(
            Budget(seconds=50.0), spent, 0.0, starting=0, busy=3, exhausted="", committed=(34.0, 17.0)
        ).seconds
        == 50.0
    )


def test_without_a_rung_rule_nothing_is_started_or_taken_up_that_does_not_fit():
    scheduler = make_scheduler(Says(NEW))
    scheduler.rule = None
    assert not scheduler.choose(RemainingBudget(epochs=9.0), queued=False).nothing
    step = scheduler.choose(RemainingBudget(epochs=8.0), queued=False)
    assert (step.nothing, step.why) == (True, TOO_LITTLE)
    stored = {0: COSTS, 1: {"epochs": 1.0}}
    scheduler.interrupted = [TrialRecord(4, State.PARTIAL, {}, {"width": 4}, {}, {}, 0, rungs=stored)]
    assert scheduler.choose(RemainingBudget(epochs=8.0), queued=False).trial == 4
    assert scheduler.choose(RemainingBudget(epochs=7.0), queued=False).nothing


@pytest.mark.parametrize(("kept", "said"), [(0.0, ""), (60.0, "time budget of 1m 40s is spent, 1m of it reserved")])
def test_what_is_kept_back_ends_the_budget_earlier(kept, said):
    assert Budget(seconds=100.0).ended(Spent(seconds=50.0), kept_back=kept) == said


def test_the_epoch_time_of_a_new_candidate_is_its_own_and_not_that_of_the_finalists():
    waiting = {4: 1, 5: 1}  # 8 epochs of 1 s to the top; the first rung of the newcomer takes as long as it says
    for epoch, chosen in ((0.4, None), (0.6, 5)):
        rule = Says(Action(None, 1.0, "a new candidate promises more", epoch), (5, 4))
        scheduler = make_scheduler(rule, seconds_per_epoch=1.0, waiting=waiting)
        assert scheduler.choose(RemainingBudget(seconds=8.5), queued=False).trial == chosen


def test_half_way_through_the_most_promising_paused_trial_goes_on_where_nothing_is_complete():
    planned = make_scheduler(Says(NEW, (5, 4)), seconds_per_epoch=1.0, waiting={4: 1, 5: 1})
    remaining = {"seconds": 50.0, "quickest": 4.0}
    assert planned.choose(RemainingBudget(**remaining, gone=0.4), queued=False).trial is None
    step = planned.choose(RemainingBudget(**remaining, gone=0.5), queued=False)
    assert (step.trial, step.final, step.why) == (5, True, "no trial has come to the top yet")
    assert planned.choose(RemainingBudget(seconds=50.0, gone=0.5), queued=False).trial is None  # one is complete
    stops = make_scheduler(Says(NEW, verdict=RungDecision(False, "place 3 of 3", final=True)), seconds_per_epoch=1.0)
    assert stops.after(7, 1, COSTS, RemainingBudget(**remaining, gone=0.6)).go_on
    assert not stops.after(7, 1, COSTS, RemainingBudget(**remaining, gone=0.4)).go_on


def test_the_nearest_trial_continues_early_if_the_budget_left_is_just_enough_for_it():
    scheduler = make_scheduler(Says(NEW, (5, 4)), seconds_per_epoch=1.0, waiting={4: 1, 5: 2})  # 8 s and 6 s to the top
    assert scheduler.choose(RemainingBudget(seconds=10.0, quickest=9.0, gone=0.1), queued=False).trial is None
    assert (
        scheduler.choose(RemainingBudget(seconds=8.4, quickest=9.0, gone=0.1), queued=False).trial == 5
    )  # 1.25 times 6 s, and 1 s


def test_where_no_paused_trial_would_be_done_a_quicker_student_is_tried_and_else_the_nearest_goes_on_all_the_same():
    scheduler = make_scheduler(Says(NEW, (4,)), seconds_per_epoch=10.0, waiting={4: 1})  # 80 s to the top
    assert scheduler.choose(RemainingBudget(seconds=60.0, quickest=40.0, gone=0.7), queued=False).trial is None
    assert scheduler.choose(RemainingBudget(seconds=60.0, quickest=90.0, gone=0.7), queued=False).trial == 4
    closed = RemainingBudget(seconds=60.0, quickest=40.0, gone=0.7, closed=TOO_LITTLE, few=False)
    assert scheduler.choose(closed, queued=False).trial == 4
    assert scheduler.choose(RemainingBudget(epochs=7.0, quickest=40.0, gone=0.7, closed="over"), queued=False).nothing


def test_the_share_of_a_budget_that_is_gone():
    assert Budget(trials=5).share(Spent(trials=4)) == 0.0
    assert Budget(seconds=100.0).share(Spent(seconds=40.0), kept_back=20.0) == 0.5
    assert Budget(seconds=100.0, epochs=50.0).share(Spent(seconds=40.0, epochs=30.0)) == 0.6
    assert Budget(device_seconds=200.0).share(Spent(device_seconds=50.0)) == 0.25
