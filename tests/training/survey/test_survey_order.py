"""The order of a survey: the first students, however many, are spread over all of them."""

from __future__ import annotations

import numpy as np
import pytest

from autodistill.training.costs.cost_memory import FEATURES
from autodistill.training.survey.survey_order import in_turn, spread


def features(macs: float) -> dict[str, float]:
    return dict.fromkeys(FEATURES, macs)


def test_families_take_turns() -> None:
    assert in_turn(["a", "a", "b", "a", "c", "b"]) == [0, 2, 4, 1, 5, 3]
    assert in_turn([]) == []


def test_the_cheapest_and_the_dearest_come_first_then_one_of_every_family() -> None:
    families = ["a"] * 6 + ["b"] * 3 + ["c"]
    macs = [20, 30, 10, 90, 40, 50, 21, 22, 23, 60]
    order = spread(families, [features(one) for one in macs])
    assert sorted(order) == list(range(10))
    assert order[:2] == [2, 3]
    assert order[2:4] == [7, 9]  # the middle one of b, the only one of c


def test_the_others_follow_by_their_distance_to_all_before() -> None:
    # in logarithms 0, 1, …, 8: the ends, then the middle, then the quarters, then what is left
    order = spread(["a"] * 9, [features(np.e**power) for power in range(9)])
    assert order[:3] == [0, 8, 4]
    assert set(order[3:5]) == {2, 6}
    assert set(order[5:]) == {1, 3, 5, 7}


def test_those_that_are_known_are_not_measured_again_and_what_is_near_them_comes_last() -> None:
    order = spread(["a"] * 5, [features(np.e**power) for power in (0, 0.1, 8, 7.9, 4)], before=[0, 2])
    assert order[0] == 4
    assert sorted(order) == [1, 3, 4]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_students_need_no_order(count: int) -> None:
    assert sorted(spread(["a"] * count, [features(5.0)] * count)) == list(range(count))
