"""The Gaussian process that learns what is not known before training.

scikit-learn's regressor with one kernel of our own: a Matern-5/2 with one length scale per parameter (its one-hot columns
share it), plus a linear trend in the known costs, which is a prior mean that knows capacity and whose slope is learned.
Hyperparameters are maximum a posteriori under log-normal priors, so that ten points are enough to start with.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

Floats = npt.NDArray[np.float64]

_FIVE = np.sqrt(5.0)


class GroupedMatern(Kernel):  # type: ignore[misc]
    """``amplitude * Matern52(x, x') + trend * <x_t, x'_t> + noise``.

    Args:
        groups: group number of every column; columns of one group share a length scale.
        trend_columns: columns with a linear trend.
        lengths: length scale of each group.
        amplitude: variance of the Matern part.
        trend: variance of the slopes.
        noise: variance of the observations; part of the training covariance, not of predictions.
    """

    def __init__(
        self,
        groups: tuple[int, ...],
        trend_columns: tuple[int, ...],
        lengths: Floats,
        amplitude: float = 1.0,
        trend: float = 1.0,
        noise: float = 1e-2,
    ) -> None:
        self.groups = groups
        self.trend_columns = trend_columns
        self.lengths = lengths
        self.amplitude = amplitude
        self.trend = trend
        self.noise = noise

    @property
    def hyperparameter_lengths(self) -> Hyperparameter:
        """Sizes and bounds, as scikit-learn wants them."""
        return Hyperparameter("lengths", "numeric", (5e-2, 50.0), len(self.lengths))

    @property
    def hyperparameter_amplitude(self) -> Hyperparameter:
        """See ``hyperparameter_lengths``."""
        return Hyperparameter("amplitude", "numeric", (1e-2, 20.0))

    @property
    def hyperparameter_trend(self) -> Hyperparameter:
        """See ``hyperparameter_lengths``."""
        return Hyperparameter("trend", "numeric", (1e-3, 20.0))

    @property
    def hyperparameter_noise(self) -> Hyperparameter:
        """See ``hyperparameter_lengths``."""
        return Hyperparameter("noise", "numeric", (1e-5, 0.5))

    def __call__(self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False) -> Any:  # noqa: N803
        """Covariance ``(n, m)``, and its gradient ``(n, n, hyperparameters)`` by the logarithms."""
        other = X if Y is None else Y
        scale = 1.0 / self.lengths[np.asarray(self.groups)]
        distance = np.sqrt(_squared(X * scale, other * scale))
        decay = np.exp(-_FIVE * distance)
        matern = self.amplitude * (1 + _FIVE * distance + 5.0 / 3.0 * distance**2) * decay
        columns = list(self.trend_columns)
        linear = self.trend * (X[:, columns] @ other[:, columns].T)
        total = matern + linear
        if Y is None:
            total[np.diag_indices_from(total)] += self.noise
        if not eval_gradient:
            return total
        gradient = np.empty((len(X), len(X), len(self.lengths) + 3))
        # d Matern52 / d log length_g = amplitude 5/3 (1 + sqrt5 d) exp(-sqrt5 d) * (x_g - x'_g)^2 / length_g^2;
        # scikit-learn orders hyperparameters by name: amplitude, lengths, noise, trend
        slope = self.amplitude * 5.0 / 3.0 * (1 + _FIVE * distance) * decay
        gradient[:, :, 0] = matern
        for g in range(len(self.lengths)):
            part = X[:, np.asarray(self.groups) == g] / self.lengths[g]
            gradient[:, :, 1 + g] = slope * _squared(part, part)
        gradient[:, :, -2] = np.eye(len(X)) * self.noise
        gradient[:, :, -1] = linear
        return total, gradient

    def diag(self, X: Floats) -> Floats:  # noqa: N803
        """Prior variance of the function itself, ``(n,)``."""
        columns = list(self.trend_columns)
        variance: Floats = self.amplitude + self.trend * (X[:, columns] ** 2).sum(axis=1)
        return variance

    def paired(self, first: Floats, second: Floats) -> Floats:
        """Prior covariance of row ``i`` of ``first`` with row ``i`` of ``second``, ``(n,)``, without noise."""
        scale = 1.0 / self.lengths[np.asarray(self.groups)]
        distance = np.linalg.norm((first - second) * scale, axis=1)
        matern = (1 + _FIVE * distance + 5.0 / 3.0 * distance**2) * np.exp(-_FIVE * distance)
        columns = list(self.trend_columns)
        covariance: Floats = self.amplitude * matern + self.trend * (first[:, columns] * second[:, columns]).sum(axis=1)
        return covariance

    def is_stationary(self) -> bool:
        """False: the trend is not."""
        return False


@dataclass(frozen=True)
class Surrogate:
    """A fitted process; targets are standardized inside.

    Attributes:
        process: the scikit-learn regressor, fitted to standardized targets.
        mean: added to its predictions.
        scale: multiplies them.
    """

    process: GaussianProcessRegressor
    mean: float
    scale: float

    @property
    def theta(self) -> Floats:
        """Logarithms of the hyperparameters, to start the next fit from."""
        theta: Floats = self.process.kernel_.theta
        return theta

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the noise-free function, each ``(n,)``."""
        mean, deviation = self.process.predict(features, return_std=True)
        return mean * self.scale + self.mean, np.maximum(deviation * self.scale, 1e-9)

    @property
    def noise(self) -> float:
        """Variance of an observation around the function."""
        return float(self.process.kernel_.noise) * self.scale**2

    def covariance(self, first: Floats, second: Floats) -> Floats:
        """Posterior covariance of row ``i`` of ``first`` with row ``i`` of ``second``, ``(n,)``."""
        kernel, data = self.process.kernel_, self.process.X_train_
        left = solve_triangular(self.process.L_, kernel(data, first), lower=True, check_finite=False)
        right = left
        if second is not first:
            right = solve_triangular(self.process.L_, kernel(data, second), lower=True, check_finite=False)
        covariance: Floats = (kernel.paired(first, second) - (left * right).sum(axis=0)) * self.scale**2
        return covariance


def fit(
    features: Floats,
    targets: Floats,
    *,
    groups: tuple[int, ...],
    trend_columns: tuple[int, ...] = (),
    theta: Floats | None = None,
    optimize: bool = True,
    extra_noise: Floats | float = 1e-8,
) -> Surrogate:
    """Fit a process to ``(n, columns)`` features and ``(n,)`` targets.

    Args:
        features: see :class:`autodistill.search.features.Encoder`.
        targets: losses.
        groups: group number of every column.
        trend_columns: columns with a linear trend.
        theta: hyperparameters to start from, or to keep.
        optimize: look for better hyperparameters.
        extra_noise: known variance of each standardized target, on top of the learned noise.
    """
    mean, scale = float(targets.mean()), float(targets.std()) or 1.0
    count = max(groups) + 1
    kernel = GroupedMatern(groups, trend_columns, np.full(count, _typical_length(count)))
    prior = kernel.theta.copy()
    if theta is not None and len(theta) == len(kernel.theta):
        kernel = kernel.clone_with_theta(np.clip(theta, kernel.bounds[:, 0], kernel.bounds[:, 1]))
    process = GaussianProcessRegressor(
        kernel, alpha=extra_noise, optimizer=_map_optimizer(prior) if optimize else None, copy_X_train=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length scale at its bound is an answer, not a problem
        process.fit(features, (targets - mean) / scale)
    return Surrogate(process, mean, scale)


def _typical_length(groups: int) -> float:
    # grows with the dimension, as in Hvarfner et al. 2024, "Vanilla Bayesian optimization performs great in high
    # dimensions": two random points are then about one length scale apart whatever the number of parameters
    return float(np.sqrt(groups) * 0.7)


def _map_optimizer(prior: Floats) -> Any:
    """L-BFGS on the posterior: log-normal priors around ``prior``, wide for the noise."""
    width = np.full(len(prior), 1.0)
    width[-2] = 2.0

    def optimize(objective: Any, initial: Floats, bounds: Floats) -> tuple[Floats, float]:
        def negative(theta: Floats) -> tuple[float, Floats]:
            value, gradient = objective(theta)
            z = (theta - prior) / width
            return value + 0.5 * float(z @ z), gradient + z / width

        found = minimize(negative, initial, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40})
        return found.x, float(found.fun)

    return optimize


def _squared(a: Floats, b: Floats) -> Floats:
    """Squared Euclidean distances ``(n, m)``."""
    distance = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2.0 * (a @ b.T)
    return np.maximum(distance, 0.0)
