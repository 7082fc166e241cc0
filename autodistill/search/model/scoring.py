"""What the front sampler believes of candidates: expected gain, work, Gittins index, and a sentence about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill.core.records import Constraint, Estimate
from autodistill.search.model.front_model import Model, unwarp
from autodistill.search.model.model_input import CandidateBatch, ModelInput
from autodistill.search.rungs import promotion

Floats = npt.NDArray[np.float64]

EpochCost = Callable[[Mapping[str, Any]], float]
"""Predicted work of one epoch of the candidate with these parameter values."""


@dataclass(frozen=True)
class CandidateScorer:
    """Beliefs at one moment of a study.

    Attributes:
        view: scaled axes.
        model: surrogates and the front.
        rungs: cumulative epochs of the rungs; empty when every trial is a full training.
        epoch_cost: work of one epoch of a candidate; ``None``: 1.
        constraints: on known costs; a gain counts as far as the candidate is likely to keep them.
    """

    view: ModelInput
    model: Model
    rungs: tuple[float, ...] = ()
    epoch_cost: EpochCost | None = None
    constraints: tuple[Constraint, ...] = ()

    def final(self, pool: CandidateBatch) -> tuple[Floats, Floats]:
        """Mean and deviation ``(candidates, objectives)`` of scaled losses at the top rung."""
        features = self.view.features(pool.params, self.view.inputs(pool.costs))
        return self.model.believe(features, self.view.known(pool.costs), self.view.unsure(pool.costs))

    def gain(self, pool: CandidateBatch) -> Floats:
        """Expected front gain of each candidate, as a share of the box."""
        if not pool.values:
            return np.zeros(0)
        gain: Floats = self.model.gain(*self.final(pool)) * self._chance(pool.costs)
        return gain

    def gain_of(self, pool: CandidateBatch) -> Callable[[Floats, npt.NDArray[np.int64]], Floats]:
        """The same for other parameters of students in ``pool``: of encoded parameters and the rows they belong to."""
        inputs, known, unsure = (read(pool.costs) for read in (self.view.inputs, self.view.known, self.view.unsure))
        chance = self._chance(pool.costs)

        def gain(params: Floats, rows: npt.NDArray[np.int64]) -> Floats:
            features = self.view.features(params, inputs[rows])
            found: Floats = self.model.gain(*self.model.believe(features, known[rows], unsure[rows])) * chance[rows]
            return found

        return gain

    def work(self, pool: CandidateBatch) -> Floats:
        """Work of one epoch of each candidate."""
        if self.epoch_cost is None:
            return np.ones(len(pool.values))
        return np.array([max(self.epoch_cost(values), 1e-9) for values in pool.values])

    def index(self, pool: CandidateBatch, rungs: Sequence[int]) -> tuple[Floats, Floats]:
        """Gittins index of candidates that have passed ``rungs``, and the work that is left to the top."""
        mean, deviation = self.final(pool)
        inputs, work = self.view.inputs(pool.costs), self.work(pool)
        chance, index, reach = self._chance(pool.costs), np.zeros(len(work)), np.zeros(len(work))
        levels = np.array([0.0, *self.rungs])
        target = self.view.unknown[0]
        for rung in sorted(set(rungs)):
            rows = np.flatnonzero(np.asarray(rungs) == rung)
            fidelities = [float(self.view.fidelity(epochs)) for epochs in self.rungs[rung:]]
            stages = [self.view.features(pool.params[rows], inputs[rows], f) for f in fidelities]
            steps = np.diff(levels[rung:])[None, :] * work[rows, None]
            gain = self.model.gain_along(mean[rows], deviation[rows], target, promotion.GRID) * chance[rows, None]
            index[rows] = promotion.index(gain, self.model.resolved(stages, target), steps)
            reach[rows] = steps.sum(axis=1)
        return index, reach

    def expected(self, pool: CandidateBatch, bound: float) -> tuple[Floats, Floats]:
        """What the first objective comes to at the top rung, where it is learned.

        Args:
            pool: candidates.
            bound: a value of the objective.

        Returns:
            The median less a deviation, the median, and the median and a deviation, ``(candidates, 3)``; and the
            probability ``(candidates,)`` of being no worse than ``bound``.
        """
        mean, deviation = (part[:, 0] for part in self.final(pool))
        axis = self.view.axes[0]
        low, high = (0.0, 1.0) if axis.objective.unit == "fraction" else (-math.inf, math.inf)
        losses = unwarp(mean[:, None] + deviation[:, None] * np.array([-1.0, 0.0, 1.0]))
        raw = np.vectorize(axis.raw, otypes=[float])(losses)
        return np.clip(raw, low, high), self.view.chance(mean, deviation, 0, bound)

    def explain(self, pool: CandidateBatch, row: int, count: int) -> str:
        """What is expected of a candidate that was the best of ``count``."""
        one = pool.take([row])
        mean, deviation = self.final(one)
        chance = float(self._chance(one.costs)[0]) * self.view.keeping(mean[0], deviation[0])
        doubt = f", {chance:.0%} likely within the bounds" if chance < 0.995 else ""
        return f"{self.view.explain(mean[0], deviation[0], float(self.gain(one)[0]))}{doubt}, best of {count}"

    def _chance(self, costs: Sequence[Mapping[str, float]]) -> Floats:
        """Probability ``(candidates,)`` that known costs keep the constraints; below 1 only where they are estimates.

        What breaks a bound when it is measured is never trained, so the chance is a factor of the gain (Gardner et al.,
        ICML 2014); it is taken as independent of how good the candidate is.
        """
        chance = np.ones(len(costs))
        if self.constraints:
            for row, own in enumerate(costs):
                if any(isinstance(own.get(one.metric), Estimate) for one in self.constraints):
                    chance[row] = math.prod(one.chance(own) for one in self.constraints)
        return chance
