import numpy as np
import pytest

from autodistill.search.model import acquisition
from autodistill.search.objectives import pareto

FRONT = np.array([[0.2, 0.7], [0.5, 0.4], [0.8, 0.1]])


def gains(points, front=FRONT):
    reference = np.ones(front.shape[1])
    base = pareto.hypervolume(front, reference)
    return np.array([pareto.hypervolume(np.vstack([front, p]), reference) - base for p in points])


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_the_gain_of_a_certain_point_is_its_hypervolume_improvement(objectives):
    rng = np.random.default_rng(0)
    front, points = rng.random((12, objectives)), rng.random((20, objectives)) * 1.2
    boxes = pareto.nondominated_boxes(front, np.ones(objectives))
    found = acquisition.expected_gain(points, np.zeros_like(points), *boxes)
    assert found == pytest.approx(gains(points, front), abs=1e-12)


@pytest.mark.parametrize("uncertain", [(0,), (1,), (0, 1)])
def test_the_expected_gain_equals_a_simulation(uncertain):
    rng = np.random.default_rng(1)
    mean, deviation = np.array([[0.4, 0.35]]), np.zeros((1, 2))
    deviation[0, list(uncertain)] = 0.2
    draws = mean + deviation * rng.normal(size=(20_000, 2))
    expected = gains(draws).mean()
    found = acquisition.expected_gain(mean, deviation, *pareto.nondominated_boxes(FRONT, np.ones(2)))
    assert found[0] == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("uncertain", [(0,), (0, 1)])
def test_the_expected_gain_of_a_shifted_log_normal_loss_equals_a_simulation(uncertain):
    rng, shift = np.random.default_rng(2), 0.5
    mean, deviation = np.array([[0.4, 0.35]]), np.zeros((1, 2))
    mean[0, list(uncertain)] = np.log(mean[0, list(uncertain)] + shift)
    deviation[0, list(uncertain)] = 0.3
    draws = mean + deviation * rng.normal(size=(20_000, 2))
    draws[:, list(uncertain)] = np.exp(draws[:, list(uncertain)]) - shift
    boxes = pareto.nondominated_boxes(FRONT, np.ones(2))
    found = acquisition.expected_gain(mean, deviation, *boxes, shifts=dict.fromkeys(uncertain, shift))
    assert found[0] == pytest.approx(gains(draws).mean(), rel=0.03)


def test_one_objective_may_be_known_of_some_candidates_and_predicted_for_others():
    boxes = pareto.nondominated_boxes(FRONT, np.ones(2))
    mean = np.array([[0.4, 0.35], [0.4, 0.35], [0.1, 0.9]])
    deviation = np.array([[0.2, 0.0], [0.2, 0.2], [0.0, 0.0]])
    together = acquisition.expected_gain(mean, deviation, *boxes, shifts={0: 0.5})
    alone = [acquisition.expected_gain(mean[i, None], deviation[i, None], *boxes, shifts={0: 0.5})[0] for i in range(3)]
    assert together == pytest.approx(alone)
    mean[:, 0] = np.log(mean[:, 0] + 0.5)  # the first objective is a shifted log-normal, the second is Gaussian
    draws = mean[1] + deviation[1] * np.random.default_rng(3).normal(size=(20_000, 2))
    draws[:, 0] = np.exp(draws[:, 0]) - 0.5
    found = acquisition.expected_gain(mean[1, None], deviation[1, None], *boxes, shifts={0: 0.5})
    assert found[0] == pytest.approx(gains(draws).mean(), rel=0.03)


def test_the_gain_along_one_objective_agrees_with_certain_points():
    boxes = pareto.nondominated_boxes(FRONT, np.ones(2))
    grid = np.linspace(-0.5, 1.5, 9)
    found = acquisition.gain_along(np.array([[0.0, 0.3]]), np.zeros((1, 2)), *boxes, objective=0, points=grid[None])
    assert found[0] == pytest.approx(gains([[x, 0.3] for x in grid]))


def test_an_empty_front_leaves_the_whole_box_to_gain():
    boxes = pareto.nondominated_boxes(np.zeros((0, 2)), np.ones(2))
    assert acquisition.expected_gain(np.array([[0.25, 0.5]]), np.zeros((1, 2)), *boxes) == pytest.approx([0.375])
