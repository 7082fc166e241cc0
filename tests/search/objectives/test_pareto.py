import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna._hypervolume import compute_hypervolume

from autodistill.search.objectives import pareto

grids = st.integers(1, 4).flatmap(
    lambda m: arrays(float, st.tuples(st.integers(1, 12), st.just(m)), elements=st.integers(0, 5).map(float))
)


def dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


@given(grids)
@settings(max_examples=60, deadline=None)
def test_the_mask_is_the_definition_of_dominance(losses):
    expected = [not any(dominates(other, row) for other in losses) for row in losses]
    assert pareto.nondominated_mask(losses).tolist() == expected


@given(grids)
@settings(max_examples=60, deadline=None)
def test_ranks_are_what_repeated_peeling_gives(losses):
    expected = np.full(len(losses), -1)
    rank = 0
    while (expected < 0).any():
        left = np.flatnonzero(expected < 0)
        front = [i for i in left if not any(dominates(losses[j], losses[i]) for j in left)]
        expected[front] = rank
        rank += 1
    assert pareto.nondominated_ranks(losses).tolist() == expected.tolist()


def test_rows_that_are_not_finite_are_never_on_the_front_and_rank_last():
    losses = [[np.nan, 0.0], [1.0, 1.0], [np.inf, -1.0], [2.0, 2.0]]
    assert pareto.nondominated_mask(losses).tolist() == [False, True, False, False]
    assert pareto.nondominated_ranks(losses).tolist() == [2, 0, 2, 1]
    assert pareto.hypervolume(losses, [3.0, 3.0]) == 4.0


def test_nothing_measured_gives_an_empty_front():
    assert pareto.nondominated_ranks(np.full((3, 2), np.nan)).tolist() == [0, 0, 0]
    assert not pareto.nondominated_mask(np.full((3, 2), np.nan)).any()
    assert pareto.hypervolume(np.zeros((0, 2)), [1.0, 1.0]) == 0.0
    assert pareto.epsilon_net_order(np.zeros((0, 2))).tolist() == []


def test_the_epsilon_net_takes_the_ends_first_and_then_the_widest_gap():
    # on the line x + y = 4: the best in the first objective, the other end, then what is farthest from both
    losses = np.array([[1.0, 3.0], [0.0, 4.0], [4.0, 0.0], [2.0, 2.0], [0.1, 3.9]])
    assert pareto.epsilon_net_order(losses).tolist() == [1, 2, 3, 0, 4]


def test_the_epsilon_net_does_not_depend_on_units():
    losses = np.random.default_rng(0).random((20, 3))
    scaled = losses * [1.0, 1e6, 1e-3] + [0.0, 5.0, -7.0]
    assert pareto.epsilon_net_order(losses).tolist() == pareto.epsilon_net_order(scaled).tolist()


def test_the_epsilon_net_puts_unmeasured_rows_last_and_each_row_once():
    order = pareto.epsilon_net_order([[np.nan, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 2.0]])
    assert order.tolist()[-1] == 0
    assert sorted(order.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_one_point_dominates_a_box(objectives):
    assert pareto.hypervolume(np.full((1, objectives), 0.25), np.ones(objectives)) == pytest.approx(0.75**objectives)


def test_a_staircase_has_the_area_of_its_steps():
    # steps at x = 0, 1, 2 with heights 1, 2, 3 below the corner (3, 3): 1 + 2 + 3
    assert pareto.hypervolume([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]], [3.0, 3.0]) == 6.0


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_volumes_equal_those_of_optuna(objectives):
    losses = np.random.default_rng(objectives).random((30, objectives))
    reference = np.full(objectives, 1.1)
    assert pareto.hypervolume(losses, reference) == pytest.approx(compute_hypervolume(losses, reference))


@given(grids)
@settings(max_examples=60, deadline=None)
def test_boxes_are_disjoint_and_fill_what_is_not_dominated(losses):
    objectives = losses.shape[1]
    reference = np.full(objectives, 4.0)
    lower, upper = pareto.nondominated_boxes(losses, reference)
    lower = np.maximum(lower, -1.0)
    volume = np.prod(upper - lower, axis=1).sum()
    assert volume == pytest.approx(5.0**objectives - pareto.hypervolume(losses, reference))
    middle = (lower + upper) / 2
    inside = ((middle[:, None] > lower) & (middle[:, None] < upper)).all(axis=2)
    assert inside.sum() == len(lower)  # the middle of a box lies in no other box
    kept = losses[(losses < reference).all(axis=1)]
    assert not (kept[None] <= middle[:, None]).all(axis=2).any()  # and is not dominated


def test_a_front_of_three_objectives_needs_about_two_boxes_a_point():
    points = np.abs(np.random.default_rng(0).normal(size=(60, 3)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert len(pareto.nondominated_boxes(points, np.full(3, 1.1))[0]) == 2 * 60 + 1


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"shape \(points, objectives\), got \(3,\)"):
        pareto.nondominated_mask([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="2 objectives, the reference point has 3"):
        pareto.hypervolume([[1.0, 2.0]], [3.0, 3.0, 3.0])
