"""The model's inputs: a study's results on scaled axes, the features of candidates, and explanations in words."""

from __future__ import annotations

import functools
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from autodistill.core.records import Estimate, Objective
from autodistill.search.model.front_model import Data, ObjectiveAxis, unwarp, warp
from autodistill.search.model.observations import Observations
from autodistill.search.objectives import pareto
from autodistill.search.objectives.objectives import spared
from autodistill.search.space.encoding import Encoder, log_scaled
from autodistill.search.space.moves import Key, key

Floats = npt.NDArray[np.float64]

REFERENCE_QUANTILE = 0.8
"""The reference of a trained objective is this quantile of the losses of the first trials, the initial design.

With a lower quantile, good candidates of small cost lie beyond the reference. With a higher one, students at chance
level would add much of the volume and be tried over and over. Trials the sampler selected are biased, so they are left
out: the cheap and bad ones that a high reference calls for would raise it further.
"""

FIDELITY = 0.5
"""Length scale of the fidelity, as a share of that of the parameters. At its first rung many a student is still at
chance level: its loss there says less about the top rung than the final loss of another student of the same kind."""

BEYOND = 0.5
"""Least distance from a bound to the best of its axis, as a share of the distance from reference to best without it."""


@dataclass(frozen=True)
class CandidateBatch:
    """Candidates with their known costs, encoded parameters and keys.

    Attributes:
        values: parameter values of each candidate.
        costs: known costs of each candidate.
        params: ``(candidates, columns)`` encoded parameters.
        keys: key of each candidate, equal for equal candidates.
    """

    values: list[dict[str, Any]]
    costs: list[Mapping[str, float]]
    params: Floats
    keys: list[Key]

    @staticmethod
    def of(
        values: list[dict[str, Any]],
        costs: list[Mapping[str, float]],
        encoder: Encoder,
        keys: list[Key] | None = None,
    ) -> CandidateBatch:
        """Build a batch from candidates and costs; keys are computed if they are not given."""
        return CandidateBatch(values, costs, encoder.encode(values), [key(v) for v in values] if keys is None else keys)

    def take(self, rows: Sequence[int]) -> CandidateBatch:
        """Return the candidates in these rows."""
        i = list(rows)
        return CandidateBatch(
            [self.values[k] for k in i], [self.costs[k] for k in i], self.params[i], [self.keys[k] for k in i]
        )

    def unseen(self, seen: Container[Key]) -> CandidateBatch:
        """Return the candidates whose key is not in ``seen``."""
        return self.take([i for i, name in enumerate(self.keys) if name not in seen])

    def join(self, other: CandidateBatch) -> CandidateBatch:
        """Return these candidates followed by the others."""
        params = np.concatenate([self.params, other.params])
        return CandidateBatch(self.values + other.values, self.costs + other.costs, params, self.keys + other.keys)


class ModelInput:
    """Scaled axes of a study, and the features of its candidates.

    Args:
        objectives: in the study's order.
        known: names of the costs that are known before training; those that are not objectives are further features.
        encoder: encoder of the parameters.
        seen: measurements so far.
        sample: random candidates; their known costs and those of the trials span the axes.
        rungs: cumulative epochs of the rungs; empty if every trial trains fully.
        bounds: worst wanted value of trained objectives, by name.
        first: number of trials that the references are computed from, see :data:`REFERENCE_QUANTILE`.

    Attributes:
        unknown: indices of the objectives that are predicted.
        quality: those of them that are maximised.
        known_objectives: indices of the objectives that are known costs.
        hints: names of the known costs that are not objectives.
        axes: scaled axis of each objective.
    """

    def __init__(
        self,
        objectives: tuple[Objective, ...],
        known: Sequence[str],
        encoder: Encoder,
        seen: Observations,
        *,
        sample: CandidateBatch,
        rungs: Sequence[float] = (),
        bounds: Mapping[str, float] | None = None,
        first: int = 10,
    ) -> None:
        self.objectives, self._encoder = objectives, encoder
        self.rungs = tuple(rungs)
        self._sample = sample
        self.unknown = tuple(j for j, o in enumerate(objectives) if o.name not in known)
        # a minimised trained objective (e.g. a latency measured after training) does not fall with known costs
        self.quality = tuple(j for j in self.unknown if objectives[j].direction == "maximize")
        self.known_objectives = tuple(j for j in range(len(objectives)) if j not in self.unknown)
        self.hints = hint_names(known, objectives)
        self._spans = [_span([costs.get(name, np.nan) for costs in sample.costs]) for name in self.hints]
        self.bounds = bound = dict(bounds or {})
        self.axes = tuple(
            _cost_axis(o, seen.raw[:, j], seen, sample)
            if o.name in known
            else _trained_axis(o, seen.raw[:, j], seen, bound.get(o.name), first)
            for j, o in enumerate(objectives)
        )

    @property
    def groups(self) -> tuple[int, ...]:
        """Group number of every feature column."""
        last = len(self._encoder.names)
        extra = len(self.known_objectives) + len(self.hints) + bool(self.rungs)
        return (*self._encoder.groups, *range(last, last + extra))

    @property
    def shared(self) -> tuple[tuple[int, ...], ...]:
        """See :attr:`Encoder.shared`."""
        return self._encoder.shared

    @functools.cached_property
    def lengths(self) -> Floats:
        """Typical length scale of every group, for the mean number of dimensions of a candidate.

        Parameters that exist only under a condition count as often as they occur. In a space of many families a
        student has the parameters of only one; with all parameters counted, two students would hardly differ.
        """
        from autodistill.search.model.gaussian_process import typical_length

        count = self.groups[-1] + 1
        active = float(np.mean([len(values) for values in self._sample.values])) if self._sample.values else 0.0
        lengths = np.full(count, typical_length(active + count - len(self._encoder.names)))
        if self.rungs:
            lengths[-1] *= FIDELITY
        return lengths

    def known(self, costs: Sequence[Mapping[str, float]]) -> Floats:
        """Return scaled losses ``(candidates, objectives)``, NaN for objectives that must be predicted."""
        out = np.full((len(costs), len(self.objectives)), np.nan)
        for j in self.known_objectives:
            out[:, j] = self.axes[j].scale([c.get(self.objectives[j].name, np.nan) for c in costs])
        return out

    def cost_deviations(self, costs: Sequence[Mapping[str, float]]) -> Floats:
        """Return the deviations ``(candidates, objectives)`` of the losses from :meth:`known`, 0 if measured."""
        out = np.zeros((len(costs), len(self.objectives)))
        for j in self.known_objectives:
            name = self.objectives[j].name
            for row in [row for row, own in enumerate(costs) if isinstance(own.get(name), Estimate)]:
                out[row, j] = self.axes[j].spread(cast(Estimate, costs[row][name]))
        return out

    def inputs(self, costs: Sequence[Mapping[str, float]]) -> Floats:
        """Return known costs as features ``(candidates, columns)``: objectives first, then the others."""
        hints = np.array([[c.get(name, np.nan) for name in self.hints] for c in costs])
        hints = hints.reshape(len(costs), len(self.hints))
        return np.nan_to_num(self._inputs(self.known(costs), hints), nan=0.5)

    def features(self, params: Floats, inputs: Floats, fidelity: Floats | float = 1.0) -> Floats:
        """Return the features: parameters, known costs (see :meth:`inputs`), and the fidelity if there are rungs."""
        columns = [params, inputs]
        if self.rungs:
            columns.append(np.broadcast_to(np.asarray(fidelity, dtype=np.float64), (len(params),))[:, None])
        return np.concatenate(columns, axis=1)

    def fidelity(self, epochs: npt.ArrayLike) -> Floats:
        """Return the fidelity, linear in the logarithm of the epochs: 0 at the lowest rung, 1 at the top."""
        if len(self.rungs) < 2:
            return np.ones_like(np.asarray(epochs, dtype=np.float64))
        low, top = np.log(self.rungs[0]), np.log(self.rungs[-1])
        trained = np.maximum(np.asarray(epochs, dtype=np.float64), 0.5 * self.rungs[0])
        unit: Floats = (np.log(trained) - low) / (top - low)
        return unit

    def data(self, seen: Observations) -> Data:
        """Return all observations on scaled axes; a failure counts as a loss at the reference point."""
        losses = np.stack([axis.scale(seen.raw[:, j]) for j, axis in enumerate(self.axes)], axis=1)
        losses[np.ix_(seen.failed, np.array(self.unknown, dtype=int))] = 1.0
        fidelity = np.where(np.isnan(seen.epochs), 1.0, self.fidelity(np.nan_to_num(seen.epochs, nan=1.0)))
        features = self.features(seen.params, self._inputs(losses, seen.hints), fidelity)
        usable = np.isfinite(features).all(axis=1)  # a trial without its known costs cannot be used
        return Data(features[usable], losses[usable], seen.full[usable], seen.owners[usable])

    def _inputs(self, losses: Floats, hints: Floats) -> Floats:
        scaled = [log_scaled(hints[:, i], low, high, low > 0) for i, (low, high) in enumerate(self._spans)]
        # a missing hint is replaced by the middle of its range; a missing objective makes the trial unusable
        columns = [losses[:, self.known_objectives], *(np.nan_to_num(column, nan=0.5)[:, None] for column in scaled)]
        return np.concatenate(columns, axis=1)

    def chance(self, mean: Floats, deviation: Floats, objective: int, bound: float) -> Floats:
        """Return the probability of being no worse than the raw value ``bound``, for warped losses."""
        wanted = warp(self.axes[objective].scale([bound]))[0]
        within: Floats = ndtr((wanted - mean) / np.maximum(deviation, 1e-12))
        return within

    def chance_within_bounds(self, mean: Floats, deviation: Floats) -> float:
        """Return the probability that the trained objectives of one candidate are within their bounds."""
        names = {objective.name: j for j, objective in enumerate(self.objectives)}
        learned = [(names[name], bound) for name, bound in self.bounds.items() if names[name] in self.unknown]
        return math.prod(float(self.chance(mean[j : j + 1], deviation[j : j + 1], j, b)[0]) for j, b in learned)

    def explain(self, mean: Floats, deviation: Floats, gain: float) -> str:
        """Describe the predictions for a candidate in a sentence.

        Args:
            mean: ``(objectives,)`` scaled losses; warped if predicted.
            deviation: ``(objectives,)`` standard deviations, 0 if known.
            gain: expected gain, as a share of the whole volume.
        """
        parts = []
        for j, axis in enumerate(self.axes):
            name = axis.objective.name
            if j in self.unknown:
                raw = [axis.raw(float(unwarp(mean[j] + k * deviation[j]))) for k in (-1, 0, 1)]
                if axis.objective.unit == "fraction":  # the model has no notion of its bounds
                    raw = [min(max(value, 0.0), 1.0) for value in raw]
                parts.append(f"{name} {raw[1]:.4g} ± {abs(raw[2] - raw[0]) / 2:.2g} expected")
            else:
                value = axis.raw(float(mean[j]))
                off = abs(axis.raw(float(mean[j] + deviation[j])) - value)
                whole = axis.objective.unit in ("count", "bytes")
                text = f"{name} {value:,.0f}" if whole else f"{name} {value:.4g}"
                parts.append(f"{text} ± {off:.2g} predicted" if off else text)
        return f"{', '.join(parts)}: may add {gain:.2g} of the front's volume"


def hint_names(known: Sequence[str], objectives: Sequence[Objective]) -> tuple[str, ...]:
    """Return the known costs that are not objectives; multiply-adds, for instance, help to predict the accuracy."""
    own = {o.name for o in objectives}
    return tuple(name for name in known if name not in own)


def _span(values: Sequence[float]) -> tuple[float, float]:
    finite = np.array(values)[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def front_owners(data: Data) -> list[int]:
    """Return the numbers of the complete trials on the front."""
    rows = np.flatnonzero(data.full)
    if len(rows) == 0:
        return []
    owners: list[int] = data.owners[rows[pareto.nondominated_mask(data.losses[rows])]].tolist()
    return [number for number in owners if number >= 0]


def _latest(seen: Observations, measured: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the row of the highest rung of each trial, sorted by trial number."""
    rows = np.flatnonzero(measured)
    order = rows[np.lexsort((np.where(seen.full, np.inf, seen.epochs)[rows], seen.owners[rows]))]
    last = np.append(np.diff(seen.owners[order]) != 0, True)
    latest: npt.NDArray[np.int64] = order[last]
    return latest


def _cost_axis(objective: Objective, column: Floats, seen: Observations, sample: CandidateBatch) -> ObjectiveAxis:
    measured = np.isfinite(column) & ~seen.failed
    known_values = [float(costs[objective.name]) for costs in sample.costs if objective.name in costs]
    values = [*known_values, *column[measured].tolist()]
    best = min(values) if objective.direction == "minimize" else max(values)
    return ObjectiveAxis(objective, best, spared(objective, values)[1])


def _trained_axis(
    objective: Objective, column: Floats, seen: Observations, bound: float | None, first: int
) -> ObjectiveAxis:
    """Return the axis from the reference to the best; a ``bound`` stricter than the reference replaces it."""
    sign = -1.0 if objective.direction == "maximize" else 1.0
    measured = np.isfinite(column) & ~seen.failed
    # the first trials, not the first full trainings: trials selected for the top rung are better than most
    losses = sign * column[_latest(seen, measured)[:first]]
    best = float((sign * column[measured]).min())
    reference = float(np.quantile(losses, REFERENCE_QUANTILE))
    if best == reference:
        reference = best + (abs(best) or 1.0) * 1e-3
    if bound is not None and sign * bound < reference:
        wanted, length = sign * bound, reference - best
        reference = max(wanted, best)  # until a trial is within the bound, every approach to it counts as a gain
        # keep the axis from collapsing if few or no trials are within the bound
        best = min(best, wanted - BEYOND * length)
    return ObjectiveAxis(objective, sign * best, sign * reference)
