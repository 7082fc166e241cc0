"""Predicts the latency of students from those of measured students, with a standard deviation.

The model is scikit-learn's Gaussian process. Its inputs are the logarithms of counted costs (MACs, parameters,
activations and operations) and the family as a category. It predicts the logarithm of latency, so its errors are
relative. Far from all measured students the standard deviation grows to the spread of the survey.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autodistill.training.costs.cost_memory import FEATURES

LEAST = 12
"""Least number of measured students that a model is fitted to."""

_NUMBERS = len(FEATURES)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """A predicted latency, with a log-normal distribution.

    Attributes:
        ms: median, milliseconds.
        deviation: standard deviation of the logarithm; 0.1 means about 10 %.
    """

    ms: float
    deviation: float

    def at_least(self, deviations: float = 2.0) -> float:
        """Return the lower bound, in milliseconds, at so many standard deviations below the median."""
        return float(self.ms * np.exp(-deviations * self.deviation))

    def __str__(self) -> str:
        return f"{self.ms:.3g} ms ± {np.expm1(self.deviation):.0%}"


@dataclass(frozen=True)
class Trust:
    """Accuracy of a latency model by leave-one-out cross-validation over the measured students.

    Attributes:
        students: number of measured students.
        median_error: median of ``|predicted / measured - 1|``.
        p90_error: 90 % quantile of the same.
        covered: share of students whose latency is within two standard deviations; 0.95 if the model is calibrated.
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
    """Model of latency, fitted to the students of a survey.

    Args:
        families: families of the measured students.
        features: counted costs of the measured students, with all of ``FEATURES``.
        latencies_ms: latencies of the measured students, milliseconds.

    Raises:
        ValueError: There are fewer than ``LEAST`` students.
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
        """Predict the latency of a student; the deviation is large for a family without measured students."""
        mean, deviation = self._process.predict(self._encode([family], [features]), return_std=True)
        return Prediction(float(np.exp(mean[0])), float(deviation[0]))

    def leave_one_out(self) -> Trust:
        """Predict every measured student from the others, in closed form, with the hyperparameters fitted to all."""
        kernel = self._process.kernel_(self._inputs) + self._process.alpha * np.eye(len(self._inputs))
        centre, scale = self._process._y_train_mean, self._process._y_train_std
        inverse = np.linalg.inv(kernel)
        errors = inverse @ ((self._targets - centre) / scale) / np.diag(inverse) * scale
        deviations = np.sqrt(1 / np.diag(inverse)) * scale
        shares = np.abs(np.expm1(-errors))
        median, p90 = (float(np.quantile(shares, q)) for q in (0.5, 0.9))
        return Trust(len(shares), median, p90, float(np.mean(np.abs(errors) <= 2 * deviations)))

    def _encode(self, families: Sequence[str], features: Sequence[Mapping[str, float]]) -> Floats:
        """Return inputs ``(students, features + families)``: standardized logarithms, then the family as one-hot."""
        numbers = (_numbers(features) - self._mean) / self._spread
        hot = np.zeros((len(families), len(self._families)))
        for row, name in enumerate(families):
            if name in self._families:
                hot[row, self._families[name]] = 1.0
        return np.hstack([numbers, hot])


def _numbers(features: Sequence[Mapping[str, float]]) -> Floats:
    """Return the logarithms of the counted costs, ``(students, features)``."""
    return np.log([[max(float(one[name]), 1.0) for name in FEATURES] for one in features])


def _fit(inputs: Floats, targets: Floats, families: int):  # type: ignore[no-untyped-def]  # scikit-learn has no types
    """Fit scikit-learn's Gaussian process: a scaled RBF kernel with one length scale per input, plus noise."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    scales = [2.0] * _NUMBERS + [2.0] * families
    kernel = ConstantKernel(4.0, (1e-2, 1e3)) * RBF(scales, (0.1, 1e3)) + WhiteKernel(1e-3, (1e-6, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True, alpha=1e-8, random_state=0)
    with warnings.catch_warnings():  # warns of hyperparameters at their bounds, which only means an irrelevant input
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(inputs, targets)
    return process
