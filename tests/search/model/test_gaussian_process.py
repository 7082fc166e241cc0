import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from autodistill.search.model import gaussian_process as surrogate
from autodistill.search.space.encoding import Encoder
from autodistill.search.space.space import Space

RNG = np.random.default_rng(0)
X = RNG.random((30, 3))
Y = np.sin(4 * X[:, 0]) + 0.5 * X[:, 1]


CENTER, EFFECTS = np.array([0.5, 0.4, 0.6]), np.array([[1.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 0.0]])


def test_the_kernel_is_scikit_learns_matern_plus_a_dot_product_of_the_effects():
    ours = surrogate.GroupedMatern((0, 1, 2), np.array([0.5, 1.0, 2.0]), CENTER, EFFECTS, 1.7, 0.4, noise=0.1)
    theirs = ConstantKernel(1.7) * Matern([0.5, 1.0, 2.0], nu=2.5) + WhiteKernel(0.1)
    effects = (X - CENTER) @ EFFECTS
    linear = 0.4 * DotProduct(sigma_0=0.0)(effects)
    assert ours(X) == pytest.approx(theirs(X) + linear)
    assert ours(X, X[:4]) == pytest.approx(theirs(X, X[:4]) + linear[:, :4])
    assert ours.paired(X[:5], X[5:10]) == pytest.approx(np.diag(ours(X[:5], X[5:10])))
    assert ours.diag(X) == pytest.approx(np.diag(ours(X)) - 0.1)


def test_the_kernel_is_not_stationary() -> None:
    kernel = surrogate.GroupedMatern((0, 1, 2), np.array([0.5, 1.0, 2.0]), CENTER, EFFECTS, 1.7, 0.4, noise=0.1)
    moved = kernel(X + 0.3) - kernel(X)
    assert abs(moved).max() > 0.1
    assert not kernel.is_stationary()
    theirs = Matern([0.5, 1.0, 2.0], nu=2.5) + DotProduct()
    assert theirs.is_stationary() == kernel.is_stationary()


def test_the_hyperparameters_are_where_scikit_learns_posterior_is_highest():
    kernel = surrogate.GroupedMatern((0, 1, 2), np.full(3, 1.2), CENTER, EFFECTS, 1.0, 0.3, 1e-2)
    standard = (Y - Y.mean()) / Y.std()
    best = surrogate._map_theta(X, standard, kernel, kernel.theta)

    def posterior(theta):
        process = GaussianProcessRegressor(kernel.clone_with_theta(theta), alpha=1e-8, optimizer=None)
        z = (theta - kernel.theta) / np.array([*[surrogate.WIDTH] * 5, surrogate.NOISE_WIDTH])
        return process.fit(X, standard).log_marginal_likelihood_value_ - 0.5 * z @ z

    assert posterior(best) > posterior(kernel.theta) + 5
    low, high = kernel.bounds.T
    for i in range(len(best)):
        for step in (-0.05, 0.05):
            near = best.copy()
            near[i] = np.clip(near[i] + step, low[i], high[i])
            assert posterior(near) <= posterior(best) + 1e-3


def test_effects_of_single_columns_and_of_shared_choices_weigh_the_same():
    centered = RNG.normal(size=(50, 4))
    effects = surrogate._effects(centered, ((0, 2), (1, 3)))
    assert effects.shape == (4, 6)
    single, shared = centered @ effects[:, :4], centered @ effects[:, 4:]
    assert (single**2).sum(axis=1).mean() == pytest.approx(0.5)
    assert (shared**2).sum(axis=1).mean() == pytest.approx(0.5)
    assert shared[:, 0] == pytest.approx((centered[:, 0] + centered[:, 2]) * effects[0, 4])


def test_the_effect_of_a_choice_carries_over_to_parameters_with_the_same_list():
    space = Space.parse({"student": {f"edge{i}": ["skip", "pool", "conv"] for i in range(4)}})
    encoder = Encoder.of(space)
    assert encoder.shared == ((0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11))
    names = ["skip", "pool", "conv"]
    rows = [{f"student.edge{i}": names[c] for i, c in enumerate((*seen, 0))} for seen in np.ndindex(3, 3, 3)]
    targets = np.array([-sum(v == "conv" for v in row.values()) for row in rows], dtype=float)
    unseen = encoder.encode([{**rows[0], "student.edge3": choice} for choice in names])  # edge3 was "skip" throughout
    groups, shared = encoder.groups, encoder.shared
    alone = surrogate.fit(encoder.encode(rows), targets, groups=groups).predict(unseen)[0]
    together = surrogate.fit(encoder.encode(rows), targets, groups=groups, shared=shared).predict(unseen)[0]
    assert together[0] - together[2] > 0.4  # a conv lowers the loss there too
    assert together[0] - together[2] > 2 * abs(alone[0] - alone[2])


def test_predictions_follow_the_data_and_are_unsure_away_from_it():
    fitted = surrogate.fit(X, Y, groups=(0, 1, 2))
    mean, deviation = fitted.predict(X)
    assert np.abs(mean - Y).max() < 0.05
    assert fitted.predict(np.full((1, 3), 5.0))[1][0] > 5 * deviation.max()


def test_a_parameter_without_effect_gets_a_long_length_scale():
    kernel = surrogate.fit(X, Y, groups=(0, 1, 2)).process.kernel_
    assert kernel.lengths[2] > 2 * kernel.lengths[0]


def test_posterior_covariance_equals_that_of_scikit_learn():
    fitted = surrogate.fit(X, Y, groups=(0, 1, 2))
    at = RNG.random((2, 3))
    process = fitted.process
    assert isinstance(process, GaussianProcessRegressor)
    _, covariance = process.predict(at, return_cov=True)
    expected = (covariance - np.eye(2) * process.kernel_.noise) * fitted.scale**2
    assert fitted.covariance(at[:1], at[1:])[0] == pytest.approx(expected[0, 1], abs=1e-9)
    assert fitted.covariance(at, at) == pytest.approx(np.diag(expected), abs=1e-9)


def test_equal_targets_are_no_problem():
    mean, _ = surrogate.fit(X, np.full(30, 2.0), groups=(0, 1, 2)).predict(X[:3])
    assert mean == pytest.approx(2.0)


def test_choices_are_one_group_and_numbers_keep_their_order():
    space = Space.parse(
        {
            "student": {"kind": ["a", "b", "c"], "width": {"values": [8, 32, 16]}, "flag": {"values": [True, False]}},
            "train": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}},
        }
    )
    encoder = Encoder.of(space)
    rows = encoder.encode(
        [
            {"student.kind": "a", "student.width": 8, "student.flag": True, "train.lr": 1e-3},
            {"student.kind": "c", "student.width": 16, "student.flag": False, "train.lr": 1e-2},
        ]
    )
    assert encoder.groups == (0, 0, 0, 1, 2, 3)
    assert np.linalg.norm(rows[0, :3] - rows[1, :3]) == pytest.approx(1.0)
    assert rows[:, 3:].tolist() == [[0.0, 0.0, pytest.approx(0.5)], [0.5, 1.0, 1.0]]


def test_an_inactive_parameter_makes_no_difference_between_two_that_lack_it():
    space = Space.parse(
        {"student": {"family": ["x", "y"], "x": {"width": {"low": 1, "high": 9}}, "y": {"mode": ["p", "q", "r"]}}}
    )
    rows = Encoder.of(space).encode([{"student.family": "x", "student.x.width": 5}, {"student.family": "y"}])
    assert rows.tolist() == [[0.0, 0.5, 0.0, 0.0, 0.0], [1.0, 0.5, 0.0, 0.0, 0.0]]
