"""The Gaussian process that predicts objectives not known before training.

It is scikit-learn's regressor with a kernel defined here: a Matérn-5/2 with one length scale per parameter (shared by
its one-hot columns), plus main effects. These are the effect of each choice independent of the others, and the effect
of each choice pooled over all parameters with the same list of choices. They form a prior mean that is linear in
parameters and known costs, with its slopes integrated out. Hyperparameters are maximum a posteriori under log-normal
priors, so that ten points are enough to start with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, lapack
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

Floats = npt.NDArray[np.float64]

WIDTH, NOISE_WIDTH = 0.5, 2.0
"""Widths of the log-normal priors of hyperparameters, and of the noise, whose prior is nearly flat.

With 1.0, length scales overfit the first few dozen points: standardised errors of held-out candidates then deviate by
1.5.
"""

_FIVE = np.sqrt(5.0)


class GroupedMatern(Kernel):  # type: ignore[misc]
    """``amplitude * Matern52(x, x') + linear * effects(x) effects(x') + noise``, ``effects(x) = (x - center) effects``.

    Args:
        groups: group number of every column; columns of one group share a length scale.
        lengths: length scale of each group.
        center: ``(columns,)`` point at which all main effects are zero.
        effects: ``(columns, effects)`` contribution of each column to each effect.
        amplitude: variance of the Matérn part.
        linear: variance of the main effects.
        noise: variance of the observations; part of the training covariance, not of predictions.
    """

    def __init__(
        self,
        groups: tuple[int, ...],
        lengths: Floats,
        center: Floats,
        effects: Floats,
        amplitude: float = 1.0,
        linear: float = 0.3,
        noise: float = 1e-2,
    ) -> None:
        self.groups = groups
        self.lengths = lengths
        self.amplitude = amplitude
        self.linear = linear
        self.noise = noise
        self.center = center
        self.effects = effects

    @property
    def lengths(self) -> Floats:
        """Length scale of each group, as an array; scikit-learn sets a single one as a number."""
        return self._lengths

    @lengths.setter
    def lengths(self, lengths: Floats) -> None:
        self._lengths = np.atleast_1d(lengths)

    @property
    def hyperparameter_lengths(self) -> Hyperparameter:
        """Size and bounds of the length scales, in scikit-learn's format."""
        return Hyperparameter("lengths", "numeric", (5e-2, 50.0), len(self.lengths))

    @property
    def hyperparameter_amplitude(self) -> Hyperparameter:
        """Bounds of the amplitude; see ``hyperparameter_lengths``."""
        return Hyperparameter("amplitude", "numeric", (1e-2, 20.0))

    @property
    def hyperparameter_linear(self) -> Hyperparameter:
        """Bounds of the main effects' variance; see ``hyperparameter_lengths``."""
        return Hyperparameter("linear", "numeric", (1e-3, 20.0))

    @property
    def hyperparameter_noise(self) -> Hyperparameter:
        """Bounds of the noise; see ``hyperparameter_lengths``."""
        return Hyperparameter("noise", "numeric", (1e-5, 0.5))

    def __call__(self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False) -> Floats:  # noqa: N803
        """Return the covariance ``(n, m)``; :func:`_map_theta` computes gradients without a tensor of them."""
        assert not eval_gradient
        other = X if Y is None else Y
        scale = 1.0 / self.lengths[np.asarray(self.groups)]
        total = self.amplitude * _matern(_squared(X * scale, other * scale))
        total += self.linear * (self.main(X) @ self.main(other).T)
        if Y is None:
            total[np.diag_indices_from(total)] += self.noise
        return total

    def diag(self, X: Floats) -> Floats:  # noqa: N803
        """Return the prior variance of the noise-free function, ``(n,)``."""
        variance: Floats = self.amplitude + self.linear * (self.main(X) ** 2).sum(axis=1)
        return variance

    def main(self, features: Floats) -> Floats:
        """Return the main effects, ``(n, effects)``."""
        main: Floats = (features - self.center) @ self.effects
        return main

    def paired(self, first: Floats, second: Floats) -> Floats:
        """Return the prior covariance of row ``i`` of both inputs, ``(n,)``, without noise."""
        scale = 1.0 / self.lengths[np.asarray(self.groups)]
        matern = _matern((((first - second) * scale) ** 2).sum(axis=1))
        linear = (self.main(first) * self.main(second)).sum(axis=1)
        covariance: Floats = self.amplitude * matern + self.linear * linear
        return covariance

    def is_stationary(self) -> bool:
        """Return false: the main effects depend on the position, not only on differences."""
        return False


class _Process(GaussianProcessRegressor):  # type: ignore[misc]
    """Regressor without scikit-learn's checks, for arrays that are known to be valid.

    scikit-learn's ``fit`` copies the kernel, validates the arrays and computes an unused likelihood; together these
    take several times as long as the fit itself.
    """

    def fit(self, X: Floats, y: Floats) -> _Process:  # noqa: N803
        """Fit like scikit-learn's regressor, without optimising the kernel."""
        self.kernel_, self.X_train_, self.y_train_ = self.kernel, X, y
        self._y_train_mean, self._y_train_std = np.zeros(()), np.ones(())  # no rescaling in its own ``predict``
        covariance = self.kernel_(X)
        covariance[np.diag_indices_from(covariance)] += self.alpha
        self.L_ = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        self.alpha_ = cho_solve((self.L_, True), y, check_finite=False)
        return self


@dataclass(frozen=True)
class Surrogate:
    """A fitted process for targets of any scale; targets are standardised internally.

    Attributes:
        process: the scikit-learn regressor, fitted to standardised targets.
        mean: offset added to its predictions.
        scale: factor on its predictions.
        theta: logarithms of the hyperparameters, the start of the next fit; a fit that keeps them is exactly this one.
    """

    process: GaussianProcessRegressor
    mean: float
    scale: float
    theta: Floats

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Predict mean and standard deviation of the noise-free function, each ``(n,)``.

        This is scikit-learn's ``predict`` without its validation of inputs, which takes as long as the rest.
        """
        kernel = self.process.kernel_
        cross = kernel(features, self.process.X_train_)
        half = self._whitened(cross.T)
        variance = np.maximum(kernel.diag(features) - np.einsum("ij,ij->j", half, half), 0.0)
        mean = cross @ self.process.alpha_
        return mean * self.scale + self.mean, np.maximum(np.sqrt(variance) * self.scale, 1e-9)

    @property
    def noise(self) -> float:
        """Variance of an observation around the function."""
        return float(self.process.kernel_.noise) * self.scale**2

    def _whitened(self, covariances: Floats) -> Floats:
        """Return ``L^-1 K`` for the covariances ``K`` ``(n, candidates)`` of data with candidates."""
        solved: Floats = lapack.dtrtrs(self.process.L_, covariances, lower=1)[0]  # scipy's wrapper is slower
        return solved

    def covariance(self, first: Floats, second: Floats) -> Floats:
        """Return the posterior covariance of row ``i`` of ``first`` with row ``i`` of ``second``, ``(n,)``."""
        kernel, data = self.process.kernel_, self.process.X_train_
        left = self._whitened(kernel(data, first))
        right = left if second is first else self._whitened(kernel(data, second))
        covariance: Floats = (kernel.paired(first, second) - (left * right).sum(axis=0)) * self.scale**2
        return covariance


def fit(
    features: Floats,
    targets: Floats,
    *,
    groups: tuple[int, ...],
    shared: tuple[tuple[int, ...], ...] = (),
    lengths: Floats | None = None,
    theta: Floats | None = None,
    optimize: bool = True,
) -> Surrogate:
    """Fit a process to ``(n, columns)`` features and ``(n,)`` targets.

    Args:
        features: encoded candidates, see :class:`autodistill.search.space.encoding.Encoder`.
        targets: losses.
        groups: group number of every column.
        shared: columns of the same choice in different parameters, whose effects are similar a priori.
        lengths: prior median of each group's length scale; by default for as many dimensions as groups.
        theta: hyperparameters to start from, or to keep.
        optimize: whether to optimise the hyperparameters.
    """
    mean, scale = float(targets.mean()), float(targets.std()) or 1.0
    count = max(groups) + 1
    center = features.mean(axis=0)
    effects = _effects(features - center, shared)
    typical = np.full(count, typical_length(count)) if lengths is None else lengths
    kernel = GroupedMatern(groups, typical, center=center, effects=effects)
    prior, low, high = kernel.theta.copy(), kernel.bounds[:, 0], kernel.bounds[:, 1]
    kept = theta if theta is not None and len(theta) == len(prior) else prior
    kernel = kernel.clone_with_theta(np.clip(kept, low, high))
    standard = (targets - mean) / scale
    if optimize:
        kept = _map_theta(features, standard, kernel, prior)
        kernel = kernel.clone_with_theta(np.clip(kept, low, high))
    return Surrogate(_Process(kernel, alpha=1e-8, optimizer=None).fit(features, standard), mean, scale, kept)


def _effects(centered: Floats, shared: tuple[tuple[int, ...], ...]) -> Floats:
    """Return one effect per column and one per choice shared by parameters; each kind has total variance 1 / kinds."""
    pooled = np.zeros((centered.shape[1], len(shared)))
    for effect, columns in enumerate(shared):
        pooled[list(columns), effect] = 1.0
    parts = [part for part in (np.eye(centered.shape[1]), pooled) if part.shape[1]]
    sizes = [float(np.sqrt(((centered @ part) ** 2).sum(axis=1).mean())) or 1.0 for part in parts]
    effects: Floats = np.hstack([part / size for part, size in zip(parts, sizes, strict=True)]) / np.sqrt(len(parts))
    return effects


def typical_length(dimensions: float) -> float:
    """Return a length scale at which two random points are about one length apart in any number of dimensions.

    It grows with the square root of the dimensions, as in Hvarfner et al. 2024, "Vanilla Bayesian optimization performs
    great in high dimensions".
    """
    return float(np.sqrt(dimensions) * 0.7)


def _map_theta(features: Floats, targets: Floats, kernel: GroupedMatern, prior: Floats) -> Floats:
    """Maximise the posterior over the logarithms of the hyperparameters, with log-normal priors around ``prior``.

    Symmetric matrices are stored as their strict lower triangle, ``(n (n - 1) / 2,)``, and the gradient contracts the
    distances of all groups with one matrix. This is several times faster than scikit-learn's tensor of gradients.
    """
    count, size = len(kernel.lengths), len(features)
    groups = np.asarray(kernel.groups)
    i, j = np.tril_indices(size, -1)
    below = i * size + j
    parts = [features[:, groups == g] for g in range(count)]
    distances = np.stack([((part[i] - part[j]) ** 2).sum(axis=1) for part in parts])
    main = kernel.main(features)
    linear = (main @ main.T).ravel()[below]
    linear_diagonal = (main**2).sum(axis=1)
    width = np.full(len(prior), WIDTH)
    width[-1] = NOISE_WIDTH

    def negative(theta: Floats) -> tuple[float, Floats]:
        # scikit-learn orders hyperparameters by name: amplitude, lengths, linear, noise
        amplitude, slopes, noise = np.exp(theta[[0, -2, -1]])
        scales = np.exp(-2.0 * theta[1 : 1 + count])
        squared = scales @ distances
        root = _FIVE * np.sqrt(squared)
        decay = amplitude * np.exp(-root)
        matern = (1 + root + 5.0 / 3.0 * squared) * decay
        covariance = np.zeros((size, size))
        covariance.ravel()[below] = matern + slopes * linear
        covariance.ravel()[:: size + 1] = amplitude + slopes * linear_diagonal + noise + 1e-8
        factor, failed = lapack.dpotrf(covariance.T, lower=0, overwrite_a=1)
        if failed:
            return 1e10, np.zeros_like(theta)
        weights = lapack.dpotrs(factor, targets, lower=0)[0]
        value = 0.5 * targets @ weights + np.log(np.diag(factor)).sum()
        inverse = lapack.dpotri(factor, lower=0, overwrite_c=1)[0].T
        # each entry below the diagonal counts twice, which cancels the factor 1/2 of the trace
        bend = inverse.ravel()[below] - weights[i] * weights[j]
        bend_diagonal = np.diag(inverse) - weights**2
        z = (theta - prior) / width
        # d Matern52 / d log length_g = amplitude 5/3 (1 + sqrt5 d) exp(-sqrt5 d) * (x_g - x'_g)^2 / length_g^2
        slope = 5.0 / 3.0 * (1 + root) * decay
        gradient = np.empty_like(theta)
        gradient[0] = bend @ matern + 0.5 * amplitude * bend_diagonal.sum()
        gradient[1 : 1 + count] = (distances @ (bend * slope)) * scales
        gradient[-2] = slopes * (bend @ linear + 0.5 * bend_diagonal @ linear_diagonal)
        gradient[-1] = 0.5 * noise * bend_diagonal.sum()
        return float(value + 0.5 * z @ z), gradient + z / width

    options = {"maxiter": 40, "ftol": 1e-4}  # further iterations would change far less than the priors' uncertainty
    found = minimize(negative, kernel.theta, jac=True, method="L-BFGS-B", bounds=kernel.bounds, options=options)
    theta: Floats = found.x
    return theta


def _matern(squared: Floats) -> Floats:
    """Return the Matérn-5/2 correlation at squared distances."""
    distance = np.sqrt(squared)
    distance *= _FIVE
    correlation: Floats = squared * (5.0 / 3.0)
    correlation += distance
    correlation += 1.0
    correlation *= np.exp(np.negative(distance, out=distance), out=distance)
    return correlation


def _squared(a: Floats, b: Floats) -> Floats:
    """Return squared Euclidean distances, ``(n, m)``."""
    distance: Floats = a @ (-2.0 * b.T)
    distance += (a**2).sum(axis=1)[:, None]
    distance += (b**2).sum(axis=1)[None, :]
    return np.maximum(distance, 0.0, out=distance)
