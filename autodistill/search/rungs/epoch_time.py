"""Predicted seconds per epoch, from what is known of a student before training.

The model is a ridge regression of the logarithm of seconds per epoch on the logarithms of the known costs (parameters,
MACs, latency, and others of the study), fitted to the trials of this study on this machine and to students that were
timed beforehand, plus an effect of the student's family: a student that is folded for deployment trains several times
longer than its latency suggests. A trial that has run is predicted by its own seconds per epoch. Nothing is predicted
from fewer than :data:`ENOUGH` trials and timed students. Time before the first epoch and time of teacher outputs
(``teacher_time.py``) are not included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autodistill.core.records import LATENCY
from autodistill.search.rungs.teacher_time import UncachedViews

Floats = npt.NDArray[np.float64]
Known = tuple[Mapping[str, float], float]
"""Known costs of a trial and its seconds per epoch."""

ENOUGH = 3
"""Trials and timed students needed for a prediction."""

NEWEST = 400
"""Most trials that the regression uses, the newest ones."""

SHRINK = 0.3
"""Ridge penalty on standardised logarithms; with few trials the slopes are shrunk to zero."""

BEYOND = math.log(3.0)
"""Predictions stay within a factor of three of the observed range."""

FAMILY_SHRINKAGE = 1.0
"""Pseudo-count that shrinks the effect of a family: with one trial, half of its deviation is used."""

PROPORTIONAL = (LATENCY, "macs", "params")
"""Costs to which training time is roughly proportional, best first."""


class EpochTime:
    """Seconds per epoch of trials and candidates.

    Attributes:
        uncached: seconds of teacher outputs that no trial has computed yet.
        version: number of the present fit.
    """

    def __init__(self) -> None:
        self.uncached = UncachedViews()
        self._measured: dict[int, float] = {}
        self._costs: dict[int, Mapping[str, float]] = {}
        self._families: dict[int, str] = {}
        self._effects: dict[str, float] = {}
        self._fitted_at = 0
        self.version = 0
        self._names: tuple[str, ...] = ()
        self._weights: Floats = np.zeros(1)
        self._range = (0.0, 0.0)

    @property
    def ready(self) -> bool:
        """Whether there are enough trials for predictions."""
        return len(self._measured) >= ENOUGH

    @property
    def typical(self) -> float | None:
        """Median seconds per epoch of the trials that ran; ``None`` before the first."""
        return float(np.median(list(self._measured.values()))) if self._measured else None

    def learn(self, number: int, costs: Mapping[str, float], epochs: float, seconds: float, family: str = "") -> None:
        """Record that a trial with these known costs has trained ``epochs`` in ``seconds`` of training alone."""
        if epochs > 0 and seconds > 0:
            self._measured[number] = seconds / epochs
            self._costs[number] = {name: value for name, value in costs.items() if value > 0}
            self._families[number] = family

    def expect(self, timed: Sequence[tuple[Mapping[str, float], float, str]]) -> None:
        """Add students that were timed for a few steps before any trial ran.

        They count like trials, with one more coefficient for all of them: their batch may differ from that of trials.

        Args:
            timed: known costs, seconds per epoch and family of each.
        """
        for place, (costs, seconds, family) in enumerate(timed, 1):
            self.learn(-place, costs, 1.0, seconds, family)

    def of(self, number: int, costs: Mapping[str, float]) -> float | None:
        """Return seconds per epoch of a trial: measured if it has run, else predicted."""
        return self._measured.get(number) or self.predict(costs)

    def predict(self, costs: Mapping[str, float], family: str = "") -> float | None:
        """Return seconds per epoch of a student of ``family`` with these costs; ``None`` with too few trials."""
        if not self.ready:
            return None
        self.refresh()
        inputs = [math.log(costs[name]) if costs.get(name, 0.0) > 0 else math.nan for name in self._names]
        expected = float(self._weights[0] + np.dot(self._weights[1:], inputs))
        low, high = self._range
        if not math.isfinite(expected):
            return math.exp(0.5 * (low + high))
        expected += self._effects.get(family, 0.0)
        return math.exp(min(max(expected, low - BEYOND), high + BEYOND))

    def least(self, students: Sequence[Mapping[str, float]], running: Mapping[int, Known]) -> float | None:
        """Return seconds per epoch of the quickest of ``students``, an optimistic value; ``None`` if unknown.

        It is the smaller of the model's prediction and of each trial's time scaled in proportion to costs. The model
        alone shrinks to the mean, and first trials are often the most expensive.

        Args:
            students: known costs of each student.
            running: known costs and seconds per epoch of running trials that have not reported yet.
        """
        seen = [*((self._costs[n], rate) for n, rate in self._measured.items()), *running.values()]
        found = [rate * ratio for k in students for c, rate in seen if (ratio := _ratio(k, c)) is not None]
        if self.ready and found:
            found += [rate for k in students if (rate := self.predict(k)) is not None]
        return min(found, default=None)

    def refresh(self) -> int:
        """Fit again if there is enough new data; return the number of the fit, for callers that cache predictions."""
        if self.ready and len(self._measured) >= 1.1 * self._fitted_at:
            self._fit()
        return self.version

    def _fit(self) -> None:
        numbers = list(self._measured)[-NEWEST:]
        self._fitted_at = len(self._measured)
        self.version += 1
        rates = np.log([self._measured[n] for n in numbers])
        self._range = float(rates.min()), float(rates.max())
        names = [set(self._costs[n]) for n in numbers]
        self._names = tuple(sorted(set.intersection(*names)))
        x = np.log([[self._costs[n][name] for name in self._names] for n in numbers]).reshape(len(numbers), -1)
        timed = np.array([float(n < 0) for n in numbers])
        x = np.column_stack([x, timed])
        center, spread = x.mean(axis=0), x.std(axis=0)
        spread = np.where(spread > 1e-9, spread, np.inf)
        unit = (x - center) / spread
        penalty = SHRINK * np.eye(unit.shape[1])
        slope = np.linalg.solve(unit.T @ unit + penalty, unit.T @ (rates - rates.mean())) / spread
        weights = slope[:-1]  # without the coefficient of timed students: predictions are for trials
        self._weights = np.concatenate([[rates.mean() - float(slope @ center)], weights])
        left = rates - rates.mean() - (x - center) @ slope
        families = np.array([self._families[n] for n in numbers])
        known = {name: left[families == name] for name in {*families.tolist()} - {""}}
        self._effects = {name: float(own.sum() / (len(own) + FAMILY_SHRINKAGE)) for name, own in known.items()}


def relative(costs: Mapping[str, float]) -> float:
    """Return a number that training time is roughly proportional to, by the best known cost; 1 if none is known."""
    return next((costs[name] for name in PROPORTIONAL if costs.get(name, 0.0) > 0), 1.0)


def _ratio(student: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Return the ratio of ``student`` to ``other`` in the best cost known of both; ``None`` if there is none."""
    for name in PROPORTIONAL:
        if student.get(name, 0.0) > 0 and other.get(name, 0.0) > 0:
            return student[name] / other[name]
    return None
