"""Latency of students that were not measured, from those that were, with an error bar.

A Gaussian process (scikit-learn's) over the logarithms of what one counting pass gives: MACs, parameters, activations
and operations, and the family as a category. It predicts log latency, so that its error is a share. Far from all
measured students it knows nothing and says so: the error bar grows to the spread of the survey.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autodistill.training.costs.cost_memory import FEATURES

LEAST = 12
"""Measured students below which nothing is predicted."""

_NUMBERS = len(FEATURES)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """A latency that was not measured.

    Attributes:
        ms: median.
        deviation: standard deviation of its logarithm; 0.1 means about 10 %.
    """

    ms: float
    deviation: float

    def at_least(self, deviations: float = 2.0) -> float:
        """Milliseconds that the latency is above, unless the model is wrong by more than so many deviations."""
        return float(self.ms * np.exp(-deviations * self.deviation))

    def __str__(self) -> str:
        return f"{self.ms:.3g} ms ± {np.expm1(self.deviation):.0%}"


@dataclass(frozen=True)
class Trust:
    """How well measured students are predicted by the others, each left out once.

    Attributes:
        students: how many.
        median_error: median of ``|predicted / measured - 1|``.
        p90_error: the 90 % quantile of it.
        covered: share of students whose latency lies within two standard deviations; 0.95 where the bars are right.
    """

    students: int
    median_error: float
    p90_error: float
    covered: float

    def __str__(self) -> str:
        return (
            f"{self.median_error:.1%} median error, {self.p90_error:.0%} for one in ten; "
            f"{self.covered:.0%} of {self.students} within two error bars"
        )


class LatencyModel:
    """Fitted once to a survey.

    Args:
        families: of the measured students.
        features: their counted costs, with all of ``FEATURES``.
        latencies_ms: their latencies.

    Raises:
        ValueError: fewer than ``LEAST`` students.
    """

    def __init__(
        self, families: Sequence[str], features: Sequence[Mapping[str, float]], latencies_ms: Sequence[float]
    ) -> None:
        if len(latencies_ms) < LEAST:
            raise ValueError(f"{len(latencies_ms)} measured students are too few; {LEAST} are needed.")
        self._families = {name: index for index, name in enumerate(sorted(set(families)))}
        raw = _numbers(features)
        self._mean, spread = raw.mean(0), raw.std(0)
        self._spread = np.where(spread > 1e-9, spread, 1.0)
        self._inputs = self._encode(families, features)
        self._targets = np.log(np.asarray(latencies_ms, dtype=np.float64))
        self._process = _fit(self._inputs, self._targets, len(self._families))

    def predict(self, family: str, features: Mapping[str, float]) -> Prediction:
        """Latency of a student; one of a family that was not measured has a wide error bar."""
        mean, deviation = self._process.predict(self._encode([family], [features]), return_std=True)
        return Prediction(float(np.exp(mean[0])), float(deviation[0]))

    def leave_one_out(self) -> Trust:
        """Every measured student predicted from the others, in closed form, with the hyperparameters of all."""
        kernel = self._process.kernel_(self._inputs) + self._process.alpha * np.eye(len(self._inputs))
        centre, scale = self._process._y_train_mean, self._process._y_train_std
        inverse = np.linalg.inv(kernel)
        errors = inverse @ ((self._targets - centre) / scale) / np.diag(inverse) * scale
        deviations = np.sqrt(1 / np.diag(inverse)) * scale
        shares = np.abs(np.expm1(-errors))
        median, p90 = (float(np.quantile(shares, q)) for q in (0.5, 0.9))
        return Trust(len(shares), median, p90, float(np.mean(np.abs(errors) <= 2 * deviations)))

    def _encode(self, families: Sequence[str], features: Sequence[Mapping[str, float]]) -> Floats:
        """``(students, features + families)``: standardized logarithms, then the family as one-hot."""
        numbers = (_numbers(features) - self._mean) / self._spread
        hot = np.zeros((len(families), len(self._families)))
        for row, name in enumerate(families):
            if name in self._families:
                hot[row, self._families[name]] = 1.0
        return np.hstack([numbers, hot])


def _numbers(features: Sequence[Mapping[str, float]]) -> Floats:
    return np.log([[max(float(one[name]), 1.0) for name in FEATURES] for one in features])


def _fit(inputs: Floats, targets: Floats, families: int):  # type: ignore[no-untyped-def]  # scikit-learn has no types
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    scales = [2.0] * _NUMBERS + [2.0] * families
    kernel = ConstantKernel(4.0, (1e-2, 1e3)) * RBF(scales, (0.1, 1e3)) + WhiteKernel(1e-3, (1e-6, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True, alpha=1e-8, random_state=0)
    with warnings.catch_warnings():  # a hyperparameter at its bound is an input that says nothing
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(inputs, targets)
    return process
