from __future__ import annotations

import math

import pytest

from autodistill.search.rungs.epoch_time import EpochTime


def test_nothing_is_predicted_from_two_trials():
    epoch_time = EpochTime()
    epoch_time.learn(0, {"macs": 1e6}, 3, 30.0)
    epoch_time.learn(1, {"macs": 2e6}, 3, 60.0)
    assert epoch_time.predict({"macs": 1e6}) is None
    assert not epoch_time.ready
    assert epoch_time.of(0, {}) == 10.0  # its own


def test_a_power_law_in_a_known_cost_is_found():
    epoch_time = EpochTime()
    for number in range(40):
        macs = 10 ** (5 + number / 10)
        epoch_time.learn(number, {"macs": macs}, 2.0, 2.0 * 1e-4 * macs**0.7)
    assert epoch_time.predict({"macs": 3e7}) == pytest.approx(1e-4 * 3e7**0.7, rel=0.1)


def test_a_prediction_stays_near_what_was_seen():
    epoch_time = EpochTime()
    for number in range(6):
        epoch_time.learn(number, {"macs": 10.0 ** (5 + number)}, 1.0, 10.0 ** (number / 2))
    assert epoch_time.predict({"macs": 1e30}) <= 3.001 * 10**2.5
    assert epoch_time.predict({"macs": 1e-9}) >= 1 / 3.001


def test_without_its_costs_a_student_is_taken_for_a_middling_one():
    epoch_time = EpochTime()
    for number, seconds in enumerate((1.0, 10.0, 100.0)):
        epoch_time.learn(number, {"macs": 10.0**number}, 1.0, seconds)
    assert epoch_time.predict({}) == pytest.approx(10.0)


def test_equal_costs_do_not_divide_by_nothing():
    epoch_time = EpochTime()
    for number in range(5):
        epoch_time.learn(number, {"macs": 5.0}, 1.0, 2.0)
    assert epoch_time.predict({"macs": 5.0}) == pytest.approx(2.0)
    assert math.isfinite(epoch_time.predict({"macs": 50.0}) or math.nan)


def test_trials_that_took_no_time_teach_nothing():
    epoch_time = EpochTime()
    for number in range(5):
        epoch_time.learn(number, {"macs": 5.0}, 1.0, 0.0)
    assert epoch_time.predict({"macs": 5.0}) is None


def test_a_family_that_trains_slowly_for_its_costs_is_predicted_so():
    epoch_time = EpochTime()
    for number in range(8):
        slow = number % 2
        epoch_time.learn(number, {"latency_ms": 1.0}, 1.0, 4.0 * (5.0 if slow else 1.0), "folded" if slow else "plain")
    slow, plain, unseen = (epoch_time.predict({"latency_ms": 1.0}, family) for family in ("folded", "plain", "other"))
    assert slow is not None
    assert plain is not None
    # the middle is sqrt(5) times the quick one; each family's four trials tell 4/5 of the rest
    assert slow == pytest.approx(4.0 * 5.0 ** (0.5 + 0.4), rel=0.05)
    assert plain == pytest.approx(4.0 * 5.0 ** (0.5 - 0.4), rel=0.05)
    assert unseen == epoch_time.predict({"latency_ms": 1.0})
    assert plain < unseen < slow


def test_timed_students_inform_effects_of_families_and_not_the_time_of_trials():
    timed = [
        ({"latency_ms": 1.0 + n}, (1.0 + n) * (4.0 if n % 2 else 1.0), "slow" if n % 2 else "quick") for n in range(6)
    ]
    pace = EpochTime()
    pace.expect(timed)
    assert pace.ready
    slow, quick = (pace.predict({"latency_ms": 3.0}, family) for family in ("slow", "quick"))
    assert slow is not None
    assert quick is not None
    assert slow > 1.5 * quick
    for number in range(6):  # with the batch of the trials an epoch takes three times as long as it was timed
        pace.learn(number, {"latency_ms": 1.0 + number}, 1.0, 3.0 * (1.0 + number), "quick")
    now = pace.predict({"latency_ms": 3.0}, "quick")
    assert now == pytest.approx(9.0, rel=0.35)
    assert pace.predict({"latency_ms": 3.0}, "slow") > 1.2 * now  # type: ignore[operator]
