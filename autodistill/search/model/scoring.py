"""Scores of candidates for the front sampler: expected gain, work, Gittins index, and an explanation in words."""

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
    """Scorer of candidates, with the model fitted at one moment of a study.

    Attributes:
        model_input: scaled axes and features.
        model: surrogates and the front.
        rungs: cumulative epochs of the rungs; empty if every trial trains fully.
        epoch_cost: work of one epoch of a candidate; ``None`` for 1.
        constraints: on known costs; the gain is multiplied by the probability of satisfying them.
    """

    model_input: ModelInput
    model: Model
    rungs: tuple[float, ...] = ()
    epoch_cost: EpochCost | None = None
    constraints: tuple[Constraint, ...] = ()

    def final(self, pool: CandidateBatch) -> tuple[Floats, Floats]:
        """Return mean and deviation ``(candidates, objectives)`` of scaled losses at the top rung."""
        features = self.model_input.features(pool.params, self.model_input.inputs(pool.costs))
        return self.model.predict(
            features, self.model_input.known(pool.costs), self.model_input.cost_deviations(pool.costs)
        )

    def gain(self, pool: CandidateBatch) -> Floats:
        """Return the expected gain of each candidate ``(candidates,)``, as a share of the hypervolume box."""
        if not pool.values:
            return np.zeros(0)
        gain: Floats = self.model.gain(*self.final(pool)) * self._chance(pool.costs)
        return gain

    def gain_of(self, pool: CandidateBatch) -> Callable[[Floats, npt.NDArray[np.int64]], Floats]:
        """Return a function for the gain of other recipes of the students in ``pool``.

        Its arguments are encoded parameters ``(n, columns)`` and their rows in ``pool`` ``(n,)``.
        """
        inputs, known, deviations = (
            read(pool.costs)
            for read in (self.model_input.inputs, self.model_input.known, self.model_input.cost_deviations)
        )
        chance = self._chance(pool.costs)

        def gain(params: Floats, rows: npt.NDArray[np.int64]) -> Floats:
            features = self.model_input.features(params, inputs[rows])
            found: Floats = self.model.gain(*self.model.predict(features, known[rows], deviations[rows])) * chance[rows]
            return found

        return gain

    def work(self, pool: CandidateBatch) -> Floats:
        """Return the work of one epoch of each candidate, ``(candidates,)``."""
        if self.epoch_cost is None:
            return np.ones(len(pool.values))
        return np.array([max(self.epoch_cost(values), 1e-9) for values in pool.values])

    def index(self, pool: CandidateBatch, rungs: Sequence[int]) -> tuple[Floats, Floats]:
        """Return the Gittins indices of candidates that have passed ``rungs``, and their remaining work to the top."""
        mean, deviation = self.final(pool)
        inputs, work = self.model_input.inputs(pool.costs), self.work(pool)
        chance, index, reach = self._chance(pool.costs), np.zeros(len(work)), np.zeros(len(work))
        levels = np.array([0.0, *self.rungs])
        target = self.model_input.unknown[0]
        for rung in sorted(set(rungs)):
            rows = np.flatnonzero(np.asarray(rungs) == rung)
            fidelities = [float(self.model_input.fidelity(epochs)) for epochs in self.rungs[rung:]]
            stages = [self.model_input.features(pool.params[rows], inputs[rows], f) for f in fidelities]
            steps = np.diff(levels[rung:])[None, :] * work[rows, None]
            gain = self.model.gain_along(mean[rows], deviation[rows], target, promotion.GRID) * chance[rows, None]
            index[rows] = promotion.index(gain, self.model.resolved(stages, target), steps)
            reach[rows] = steps.sum(axis=1)
        return index, reach

    def expected(self, pool: CandidateBatch, bound: float) -> tuple[Floats, Floats]:
        """Predict the first objective, which must be a learned one, at the top rung.

        Args:
            pool: candidates.
            bound: wanted value of the objective.

        Returns:
            Median less one deviation, median, and median plus one deviation, ``(candidates, 3)``; and the probability
            ``(candidates,)`` of being no worse than ``bound``.
        """
        mean, deviation = (part[:, 0] for part in self.final(pool))
        axis = self.model_input.axes[0]
        low, high = (0.0, 1.0) if axis.objective.unit == "fraction" else (-math.inf, math.inf)
        losses = unwarp(mean[:, None] + deviation[:, None] * np.array([-1.0, 0.0, 1.0]))
        raw = np.vectorize(axis.raw, otypes=[float])(losses)
        return np.clip(raw, low, high), self.model_input.chance(mean, deviation, 0, bound)

    def explain(self, pool: CandidateBatch, row: int, count: int) -> str:
        """Describe the predictions for a candidate that was the best of ``count``."""
        one = pool.take([row])
        mean, deviation = self.final(one)
        chance = float(self._chance(one.costs)[0]) * self.model_input.chance_within_bounds(mean[0], deviation[0])
        doubt = f", {chance:.0%} likely within the bounds" if chance < 0.995 else ""
        return f"{self.model_input.explain(mean[0], deviation[0], float(self.gain(one)[0]))}{doubt}, best of {count}"

    def _chance(self, costs: Sequence[Mapping[str, float]]) -> Floats:
        """Return the probability ``(candidates,)`` that known costs satisfy the constraints; 0 or 1 if measured.

        A candidate that violates a bound once measured is never trained, so the probability is a factor of the gain
        (Gardner et al., ICML 2014). It is assumed to be independent of the candidate's losses.
        """
        chance = np.ones(len(costs))
        if self.constraints:
            for row, own in enumerate(costs):
                if any(isinstance(own.get(one.metric), Estimate) for one in self.constraints):
                    chance[row] = math.prod(one.chance(own) for one in self.constraints)
        return chance
