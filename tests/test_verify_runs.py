from __future__ import annotations

import pytest

from autodistill.delivery.verify_runs import Job, Queue, QueueWatch
from autodistill.engines.watch import Snapshot, WorkerLine
from autodistill.engines.worker import RemoteError, WorkerLostError
from autodistill.errors import EndedEarlyError, InterruptedTrialError
from autodistill.records import Candidate, Report, State


def job(number: int, seconds: float = 10.0) -> Job:
    return Job(Candidate(number, {"family": "resnet"}, {"loss": "none"}, {}, seed=number), seconds)


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


def test_progress_says_which_run_and_how_many() -> None:
    seen: list[Snapshot] = []
    queue = Queue("s", [job(0), job(1)])
    watch = QueueWatch(seen.append, queue, {0: "trial 7 undistilled, seed 2"})
    watch.progress(WorkerLine(0, "resnet", 1.25, 4), None)  # type: ignore[arg-type]
    assert seen[-1].stage == "verify"
    assert seen[-1].done == 0
    assert seen[-1].message == "0 of 2 runs, about 20s left · trial 7 undistilled, seed 2, epoch 1.25/4"
