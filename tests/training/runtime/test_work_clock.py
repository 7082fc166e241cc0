"""The clock counts the time between start and stop, once."""

import pytest

from autodistill.training.runtime import work_clock
from autodistill.training.runtime.work_clock import WorkClock


class Time:
    now = 100.0


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(work_clock.time, "monotonic", lambda: time.now)
    return time


def test_a_clock_that_was_never_started_has_counted_nothing(time: Time) -> None:
    clock = WorkClock()
    time.now += 5
    assert clock.seconds() == 0


def test_the_time_between_stop_and_start_is_not_counted(time: Time) -> None:
    clock = WorkClock()
    clock.start()
    time.now += 3
    clock.stop()
    time.now += 10
    assert clock.seconds() == 3
    clock.start()
    time.now += 1
    assert clock.seconds() == 4


def test_a_second_start_or_stop_changes_nothing(time: Time) -> None:
    clock = WorkClock()
    clock.start()
    time.now += 2
    clock.start()
    time.now += 2
    clock.stop()
    time.now += 7
    clock.stop()
    assert clock.seconds() == 4


def test_waits_are_subtracted_and_seconds_of_an_earlier_process_are_added(time: Time) -> None:
    clock = WorkClock()
    clock.start()
    clock.add(60)
    time.now += 5
    clock.leave_out(2)
    assert clock.seconds() == 63
    clock.stop()
    time.now += 9
    assert clock.seconds() == 63
