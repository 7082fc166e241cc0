import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill.search.rungs import promotion
from autodistill.search.rungs.promotion import GRID, Peers

NEVER = np.nan


def peers(losses, final=None):
    losses = np.asarray(losses, dtype=float)
    return Peers(losses, np.full_like(losses, NEVER) if final is None else np.asarray(final, dtype=float))


def test_the_first_trials_at_a_rung_go_on():
    verdict = promotion.decide(peers([[1.0, 0.5], [0.2, 0.1]]), 0)
    assert verdict.go_on
    assert "too few" in verdict.why


def test_one_in_eta_goes_on_by_front_number():
    losses = [[0.1 * i, 0.1 * i] for i in range(9)]
    assert [promotion.decide(peers(losses), i).go_on for i in range(9)] == [True] * 3 + [False] * 6
    assert "place 4 of 9" in promotion.decide(peers(losses), 3).why


def test_inside_a_front_its_ends_go_on_before_its_middle():
    losses = [[0.0, 1.0], [0.24, 0.76], [0.5, 0.5], [0.76, 0.24], [1.0, 0.0], [0.26, 0.75]]
    assert [i for i in range(6) if promotion.decide(peers(losses), i).go_on] == [0, 4]


def test_a_large_student_that_starts_slowly_is_compared_by_the_final_losses_of_similar_ones():
    # six large finished trials gained 0.5 from here, six small ones nothing; the new large one looks worse than it is
    small = [[0.5 + 0.01 * i, 0.1] for i in range(6)]
    large = [[0.8 + 0.01 * i, 0.9] for i in range(6)]
    new = [0.7, 0.9]
    losses = [*small, *large, new]
    final = [*small, *[[loss - 0.5, cost] for loss, cost in large], [NEVER, NEVER]]
    assert promotion.decide(peers(losses, final), 12).go_on
    # without their curves it ranks behind every small one
    others = [[0.6, 0.1], [0.5, 0.1], *small[:4], *[[0.75, 0.9]] * 0, new]
    assert not promotion.decide(peers([*others, [0.4, 0.05]]), len(others) - 1).go_on


def test_what_cannot_catch_a_finished_trial_of_its_size_is_stopped():
    finished = [[0.3 + 0.01 * i, 0.2] for i in range(6)]
    losses = [*finished, [0.9, 0.3]]
    final = [*[[loss - 0.1, cost] for loss, cost in finished], [NEVER, NEVER]]
    verdict = promotion.decide(peers(losses, final), 6, eta=1.0)
    assert not verdict.go_on
    assert "behind a finished trial" in verdict.why


def test_the_transition_is_the_exact_mean_of_a_linear_function():
    moves = promotion._transition(np.array([0.0, 0.3, 1.0]))
    assert moves.sum(axis=2) == pytest.approx(np.ones((3, len(GRID))))
    middle = len(GRID) // 2
    assert (moves @ GRID)[:, middle] == pytest.approx(0.0, abs=1e-3)
    assert (moves @ GRID**2)[2, middle] == pytest.approx(1.0, abs=0.03)  # variance of the step
    assert moves[0] == pytest.approx(np.eye(len(GRID)), abs=1e-4)


def test_with_one_rung_left_the_index_is_expected_gain_over_work():
    gain = np.maximum(-GRID, 0.0)[None]  # E max(-Z, 0) = 1 / sqrt(2 pi)
    value = promotion.index(gain, np.ones((1, 1)), np.array([[5.0]]))
    assert value[0] == pytest.approx(1 / np.sqrt(2 * np.pi) / 5, rel=0.02)


def test_a_look_that_reveals_everything_saves_the_rest_of_the_work():
    # cost 1 for a look that resolves all, then 9: pay 9 only in the good half
    gain = np.where(GRID < 0, 1.0, 0.0)[None]
    look = promotion.index(gain, np.array([[1.0, 1.0]]), np.array([[1.0, 9.0]]))
    blind = promotion.index(gain, np.array([[0.0, 1.0]]), np.array([[1.0, 9.0]]))
    half = gain[0] @ promotion._transition(np.array([1.0]))[0, len(GRID) // 2]
    assert look[0] == pytest.approx(half / (1 + 9 * half), rel=0.02)
    assert blind[0] == pytest.approx(half / 10, rel=0.02)


@given(st.floats(0.0, 1.0), st.floats(0.5, 20.0), st.floats(0.5, 20.0))
@settings(max_examples=30, deadline=None)
def test_more_information_earlier_never_lowers_the_index(share, first, second):
    gain = np.maximum(-GRID - 0.5, 0.0)[None]
    work = np.array([[first, second]])
    less = promotion.index(gain, np.array([[share * 0.5, 1.0]]), work)
    more = promotion.index(gain, np.array([[share, 1.0]]), work)
    assert more[0] >= less[0] * (1 - 5e-3)


def test_no_possible_gain_has_no_index():
    assert promotion.index(np.zeros((2, len(GRID))), np.ones((2, 1)), np.ones((2, 1))).tolist() == [0.0, 0.0]
