from __future__ import annotations

import pytest

from autodistill.core.errors import EndedEarlyError, InterruptedTrialError
from autodistill.core.records import Candidate, Report, State
from autodistill.delivery.verify.queue import Queue, QueueWatch, VerifyJob
from autodistill.engines.driving.worker import RemoteError, WorkerLostError
from autodistill.engines.monitor.watch import Snapshot
from autodistill.engines.monitor.worker_line import WorkerLine


def job(number: int, seconds: float = 10.0) -> VerifyJob:
    return VerifyJob(Candidate(number, {"family": "resnet"}, {"loss": "none"}, {}, seed=number), seconds)


def finish(queue: Queue, seconds: float) -> State:
    candidate = queue.ask()
    assert candidate is not None
    queue.report(candidate, Report(0, {"params": 1.0}))
    queue.report(candidate, Report(1, {"accuracy": 0.5}, 4, seconds))
    return queue.close(candidate)


def test_runs_are_handed_out_in_their_order_until_none_is_left() -> None:
    queue = Queue("s", [job(0), job(1)])
    assert finish(queue, 1.0) is State.COMPLETE
    assert finish(queue, 1.0) is State.COMPLETE
    assert queue.ask() is None
    assert queue.done == queue.total == 2


def test_nothing_more_is_handed_out_when_the_time_is_up() -> None:
    assert Queue("s", [job(0)], enough=lambda: True).ask() is None


def test_the_time_left_is_corrected_by_what_finished_runs_took() -> None:
    queue = Queue("s", [job(0), job(1), job(2)], workers=2)
    assert queue.seconds_left() == pytest.approx(15.0)
    finish(queue, 30.0)  # three times what was thought
    assert queue.seconds_left() == pytest.approx(20 * 3 / 2)


def test_a_run_whose_worker_died_is_tried_once_more_and_then_named() -> None:
    queue = Queue("s", [job(0)])
    first = queue.ask()
    assert first is not None
    assert queue.close(first, WorkerLostError("killed by signal 9")) is State.PARTIAL
    assert queue.ask() == first
    assert queue.close(first, WorkerLostError("killed by signal 9")) is State.FAIL
    assert queue.failures == {0: "killed by signal 9"}
    assert queue.ask() is None


def test_an_error_is_kept_and_an_interruption_is_none() -> None:
    queue = Queue("s", [job(0), job(1)])
    one, two = queue.ask(), queue.ask()
    assert one is not None
    assert two is not None
    assert queue.close(one, RemoteError("InfeasibleError", "too small", "INFEASIBLE_BUILD")) is State.FAIL
    assert queue.close(two, InterruptedTrialError("stopped")) is State.PARTIAL
    assert queue.failures == {0: "InfeasibleError: too small"}


def test_a_run_that_ends_before_its_last_epoch_is_not_finished() -> None:
    queue = Queue("s", [job(0)])
    candidate = queue.ask()
    assert candidate is not None
    queue.report(candidate, Report(0, {"params": 1.0}))
    assert queue.close(candidate) is State.PARTIAL
    assert queue.done == 0


def test_an_evaluation_that_ends_by_itself_is_finished_only_with_its_last_epoch() -> None:
    queue = Queue("s", [job(0), job(1)])
    one, two = queue.ask(), queue.ask()
    assert one is not None
    assert two is not None
    queue.report(one, Report(1, {"accuracy": 0.5}, 4, 1.0))
    assert queue.close(one, EndedEarlyError()) is State.COMPLETE  # nobody stops a run: its evaluation always ends so
    assert queue.close(two, EndedEarlyError()) is State.FAIL
    assert queue.failures == {1: "the evaluation ended by itself before it was finished"}


def begun(queue: Queue, number: int = 0) -> Candidate:
    candidate = queue.ask()
    assert candidate is not None
    assert candidate.number == number
    return candidate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_falls_with_the_epochs_of_the_runs_that_are_trained() -> None:
    clock = Clock()
    queue = Queue("s", [job(0, 100.0), job(1, 60.0), job(2, 40.0)], workers=2, clock=clock)
    begun(queue, 0)
    begun(queue, 1)
    assert queue.seconds_left() == pytest.approx(100.0)  # 200 s by two workers, the longest run 100
    for second in range(1, 41):  # just as fast as was thought
        clock.now = 100.0 + second
        queue.progress(0, second / 100)
        queue.progress(1, second / 60)
        rest = (100 - second) + (60 - second) + 40
        assert queue.seconds_left() == pytest.approx(max(rest / 2, 100 - second))
    assert queue.share == pytest.approx((40 / 100 + 40 / 60) / 3)


def test_a_message_after_the_end_of_a_run_changes_nothing() -> None:
    queue = Queue("s", [job(0), job(1)])
    finish(queue, 10.0)
    queue.progress(0, 0.9)
    assert queue.share == pytest.approx(1 / 2)
    assert queue.seconds_left() == pytest.approx(10.0)


def test_a_run_that_is_slower_than_was_thought_corrects_the_rest_once_it_is_well_under_way() -> None:
    clock = Clock()
    queue = Queue("s", [job(0, 100.0), job(1, 100.0)], clock=clock)
    begun(queue)
    queue.progress(0, 0.0)
    clock.now += 15
    queue.progress(0, 0.05)  # too early to tell
    assert queue.seconds_left() == pytest.approx(95 + 100)
    clock.now += 45
    queue.progress(0, 0.2)  # 60 s for what was thought to take 20
    assert queue.seconds_left() == pytest.approx(3 * (80 + 100))


def test_a_slow_start_or_a_stall_is_forgotten_when_it_lies_in_the_earlier_half() -> None:
    clock = Clock()
    queue = Queue("s", [job(0, 100.0), job(1, 100.0)], clock=clock)
    begun(queue)
    for second, percent in ((0, 0), (200, 4), (202, 6), (204, 8)):  # the caches are filled first
        clock.now = second
        queue.progress(0, percent / 100)
    clock.now = 206
    queue.progress(0, 0.10)
    assert queue.seconds_left() == pytest.approx(90 + 100)  # from 4 % in 6 s: as fast as was thought


def test_a_finished_run_and_one_under_way_count_by_their_length() -> None:
    clock = Clock()
    queue = Queue("s", [job(0, 30.0), job(1, 30.0), job(2, 30.0)], clock=clock)
    finish(queue, 60.0)  # twice what was thought
    begun(queue, 1)
    queue.progress(1, 0.0)
    clock.now += 30
    queue.progress(1, 0.5)  # 30 s for 15: twice as well
    assert queue.seconds_left() == pytest.approx(2 * (15 + 30))
    clock.now += 30
    queue.progress(1, 0.75)  # slower: 120 s for 52.5 in all
    assert queue.seconds_left() == pytest.approx(120 / 52.5 * (7.5 + 30))


def test_a_run_that_goes_on_from_its_checkpoint_is_timed_from_there() -> None:
    clock = Clock()
    queue = Queue("s", [job(0, 100.0)], clock=clock)
    begun(queue)
    queue.progress(0, 0.6)
    assert queue.seconds_left() == pytest.approx(40.0)
    clock.now += 20
    queue.progress(0, 0.8)  # as fast as was thought, not four times as fast
    assert queue.seconds_left() == pytest.approx(20.0)


def test_a_run_whose_worker_died_is_timed_anew() -> None:
    clock = Clock()
    queue = Queue("s", [job(0, 100.0)], clock=clock)
    first = begun(queue)
    queue.progress(0, 0.5)
    assert queue.close(first, WorkerLostError("killed by signal 9")) is State.PARTIAL
    assert queue.share == 0
    clock.now += 1000  # until it is begun again
    begun(queue)
    queue.progress(0, 0.4)
    clock.now += 20
    queue.progress(0, 0.6)
    assert queue.seconds_left() == pytest.approx(40.0)


def test_nothing_is_said_of_runs_of_which_nothing_is_known() -> None:
    queue = Queue("s", [job(0, 0.0)])
    begun(queue)
    queue.progress(0, 0.5)
    assert queue.seconds_left() is None


def test_progress_says_which_run_and_how_many() -> None:
    seen: list[Snapshot] = []
    queue = Queue("s", [job(0), job(1)], clock=lambda: 0.0)
    watch = QueueWatch(seen.append, queue, {0: "trial 7 undistilled, seed 2"})
    watch.progress(WorkerLine(0, "resnet", 1.25, 4))
    assert seen[-1].stage == "verify"
    assert seen[-1].done == pytest.approx(1.25 / 4 / 2)
    assert seen[-1].message == "0 of 2 runs, about 17s left · trial 7 undistilled, seed 2, epoch 1.25/4"  # 6.9 + 10
