"""Predicted training time: seconds of one epoch as a function of what is known of a student before it is trained.

A ridge regression of the logarithm of seconds per epoch on the logarithms of the known costs (parameters, MACs,
latency, whatever the study knows), on the trials of this study and this machine, and then the effect of its family: a
student that is folded for deployment trains several times longer than its latency tells. A trial that has run is
predicted by its own pace. Nothing is predicted from fewer than :data:`ENOUGH` trials. What a trial takes before its
first epoch, and what it waits for the teacher (``teacher_time.py``), is no part of its pace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autodistill.search.rungs.teacher_time import ColdViews

Floats = npt.NDArray[np.float64]
Known = tuple[Mapping[str, float], float]
"""Known costs of a trial and its seconds per epoch."""

ENOUGH = 3
NEWEST = 400
SHRINK = 0.3  # ridge penalty on standardized logarithms: few trials give a flat answer
BEYOND = math.log(3.0)  # predictions stay within three times what was seen
OWN_KIND = 1.0
"""Trials of a family that its mean deviation is divided by in addition, so that one trial tells half of it."""
PROPORTIONAL = ("latency_ms", "macs", "params")  # to the time of training, the best first


class EpochTime:
    """Seconds per epoch of trials and candidates."""

    def __init__(self) -> None:
        self.cold = ColdViews()
        self._own: dict[int, float] = {}
        self._costs: dict[int, Mapping[str, float]] = {}
        self._kinds: dict[int, str] = {}
        self._effects: dict[str, float] = {}
        self._fitted_at = 0
        self.version = 0
        self._names: tuple[str, ...] = ()
        self._weights: Floats = np.zeros(1)
        self._range = (0.0, 0.0)

    @property
    def ready(self) -> bool:
        """Whether anything is predicted."""
        return len(self._own) >= ENOUGH

    @property
    def typical(self) -> float | None:
        """Seconds per epoch of the trial in the middle of those that ran; ``None`` before the first."""
        return float(np.median(list(self._own.values()))) if self._own else None

    def learn(self, number: int, costs: Mapping[str, float], epochs: float, seconds: float, family: str = "") -> None:
        """A trial with these known costs has trained ``epochs`` in ``seconds``, which are training alone."""
        if epochs > 0 and seconds > 0:
            self._own[number] = seconds / epochs
            self._costs[number] = {name: value for name, value in costs.items() if value > 0}
            self._kinds[number] = family

    def expect(self, timed: Sequence[tuple[Mapping[str, float], float, str]]) -> None:
        """Add students that were timed for a few steps before any trial ran.

        They count like trials, with one more coefficient for all of them: their batch may differ from that of trials.

        Args:
            timed: known costs, seconds per epoch and family of each.
        """
        for place, (costs, seconds, family) in enumerate(timed, 1):
            self.learn(-place, costs, 1.0, seconds, family)

    def of(self, number: int, costs: Mapping[str, float]) -> float | None:
        """Seconds per epoch of a trial: its own where it has run, else predicted."""
        return self._own.get(number) or self.predict(costs)

    def predict(self, costs: Mapping[str, float], family: str = "") -> float | None:
        """Seconds per epoch of a student of ``family`` with these known costs; ``None`` while too little is known."""
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
        """Seconds per epoch of the quickest of ``students``, rather too few than too many; ``None`` without a clue.

        The smaller of what the model says and of what each trial that ran says in proportion to its costs: the model
        shrinks to the middle, and first trials are often the dearest.

        Args:
            students: their known costs.
            running: trials under way that have not reported yet.
        """
        seen = [*((self._costs[n], rate) for n, rate in self._own.items()), *running.values()]
        found = [rate * ratio for k in students for c, rate in seen if (ratio := _ratio(k, c)) is not None]
        if self.ready and found:
            found += [rate for k in students if (rate := self.predict(k)) is not None]
        return min(found, default=None)

    def refresh(self) -> int:
        """Fit again when enough is new; returns the number of the fit, for those who remember predictions."""
        if self.ready and len(self._own) >= 1.1 * self._fitted_at:
            self._fit()
        return self.version

    def _fit(self) -> None:
        numbers = list(self._own)[-NEWEST:]
        self._fitted_at = len(self._own)
        self.version += 1
        rates = np.log([self._own[n] for n in numbers])
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
        self._weights = np.concatenate([[rates.mean() - float(slope @ center)], slope[:-1]])  # of trials: not timed
        left = rates - rates.mean() - (x - center) @ slope
        kinds = np.array([self._kinds[n] for n in numbers])
        known = {name: left[kinds == name] for name in {*kinds.tolist()} - {""}}
        self._effects = {name: float(own.sum() / (len(own) + OWN_KIND)) for name, own in known.items()}


def relative(costs: Mapping[str, float]) -> float:
    """What training takes in proportion to, by the best cost that is known; 1 where none is."""
    return next((costs[name] for name in PROPORTIONAL if costs.get(name, 0.0) > 0), 1.0)


def _ratio(student: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """How much dearer ``student`` is than ``other``, by the best cost that is known of both."""
    for name in PROPORTIONAL:
        if student.get(name, 0.0) > 0 and other.get(name, 0.0) > 0:
            return student[name] / other[name]
    return None
