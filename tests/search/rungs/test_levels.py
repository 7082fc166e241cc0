from __future__ import annotations

import pytest

from autodistill.core.errors import UsageError
from autodistill.search.rungs.levels import Rungs


@pytest.mark.parametrize(
    ("top", "levels"), [(27, (3, 9, 27)), (12, (1, 4, 12)), (30, (3, 10, 30)), (81, (9, 27, 81)), (1, (1,)), (2, (2,))]
)
def test_levels_shrink_by_eta_down_to_five_percent(top: int, levels: tuple[int, ...]) -> None:
    assert Rungs.geometric(top).levels == levels


def test_wrong_levels_are_refused() -> None:
    with pytest.raises(UsageError, match="increasing"):
        Rungs((3, 3))
    with pytest.raises(UsageError, match="eta"):
        Rungs((1, 3), eta=1)


def test_the_first_trials_continue_without_comparison() -> None:
    rungs = Rungs((1, 3, 9))
    assert rungs.decide(1, [0.0, 0.0], []).go_on
    assert rungs.decide(1, [9.0, 9.0], [[0.0, 0.0]]).go_on


def test_a_dominated_trial_stops_and_a_dominating_one_goes_on() -> None:
    rungs = Rungs((1, 3, 9))
    others = [[0.2, 0.2], [0.3, 0.3], [0.4, 0.4], [0.5, 0.5], [0.6, 0.6]]
    assert rungs.decide(1, [0.1, 0.1], others).go_on
    stopped = rungs.decide(1, [0.9, 0.9], others)
    assert not stopped.go_on
    assert "place 6 of 6" in stopped.why


def test_within_one_rank_the_epsilon_net_spreads_the_kept_trials() -> None:
    # five trials on one front: of six, two go on; the net starts at the best first objective, then takes the far end
    rungs = Rungs((1, 3, 9))
    line = [[0.0, 1.0], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [1.0, 0.0]]
    kept = [i for i in range(6) if rungs.decide(1, line[i], line[:i] + line[i + 1 :]).go_on]
    assert kept == [0, 5]


def test_without_stopping_only_the_top_rung_ends_a_trial() -> None:
    rungs = Rungs.off(10)
    assert rungs.levels == (10,)
    assert not rungs.decide(1, [0.0], [[1.0]]).go_on
