"""A study's outcomes on scaled axes: the numbers that the model is given, and the words that explain its choice."""

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
"""The reference of a trained objective: this quantile of the losses of the first trials, those of the first design.

Lower, good candidates of small cost lie beyond the reference; higher, much of the volume is what students at chance
level would add, and they are tried over and over. With chosen trials among them it feeds itself: the cheap and bad ones
that a high reference calls for raise it.
"""

FIDELITY = 0.5
"""Length scale of the fidelity, as a share of that of the parameters: what a student does at its first rung, where many
are still at chance level, says less of the top rung than another student of the same kind does there."""

BEYOND = 0.5
"""What is expected beyond a bound at least, as a share of what lies between reference and best without it."""


@dataclass(frozen=True)
class CandidateBatch:
    """Candidates side by side with their known costs and their parameters as features."""

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
        """Candidates with their costs, and their keys where they are at hand."""
        return CandidateBatch(values, costs, encoder.encode(values), [key(v) for v in values] if keys is None else keys)

    def take(self, rows: Sequence[int]) -> CandidateBatch:
        """Some of them."""
        i = list(rows)
        return CandidateBatch(
            [self.values[k] for k in i], [self.costs[k] for k in i], self.params[i], [self.keys[k] for k in i]
        )

    def unseen(self, seen: Container[Key]) -> CandidateBatch:
        """Those whose key is not among ``seen``."""
        return self.take([i for i, name in enumerate(self.keys) if name not in seen])

    def join(self, other: CandidateBatch) -> CandidateBatch:
        """These, then the others."""
        params = np.concatenate([self.params, other.params])
        return CandidateBatch(self.values + other.values, self.costs + other.costs, params, self.keys + other.keys)


class ModelInput:
    """Scaled axes of a study.

    Args:
        objectives: in the study's order.
        known: names of the costs that are known before training; those that are no objectives help to predict.
        encoder: parameters to features.
        seen: what was measured.
        sample: random candidates: the known costs span what they and the trials have.
        rungs: cumulative epochs of the rungs; empty when every trial is a full training.
        bounds: by name, the worst value of a trained objective that is wanted.
        first: trials that the references are read from, see :data:`REFERENCE_QUANTILE`.
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
        # what is to be small (a latency that is only measured, say) does not fall with what is paid
        self.quality = tuple(j for j in self.unknown if objectives[j].direction == "maximize")
        self.priced = tuple(j for j in range(len(objectives)) if j not in self.unknown)
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
        """Group of every feature column."""
        last = len(self._encoder.names)
        extra = len(self.priced) + len(self.hints) + bool(self.rungs)
        return (*self._encoder.groups, *range(last, last + extra))

    @property
    def shared(self) -> tuple[tuple[int, ...], ...]:
        """See :attr:`Encoder.shared`."""
        return self._encoder.shared

    @functools.cached_property
    def lengths(self) -> Floats:
        """Typical length scale of every group, that of as many dimensions as a candidate has.

        Parameters that exist only under a condition count as often as they do: of a space of many families each
        student has the parameters of one, and would else differ from another by next to nothing.
        """
        from autodistill.search.model.gaussian_process import typical_length

        count = self.groups[-1] + 1
        active = float(np.mean([len(values) for values in self._sample.values])) if self._sample.values else 0.0
        lengths = np.full(count, typical_length(active + count - len(self._encoder.names)))
        if self.rungs:
            lengths[-1] *= FIDELITY
        return lengths

    def known(self, costs: Sequence[Mapping[str, float]]) -> Floats:
        """Scaled losses ``(candidates, objectives)``, NaN where they are to be predicted."""
        out = np.full((len(costs), len(self.objectives)), np.nan)
        for j in self.priced:
            out[:, j] = self.axes[j].scale([c.get(self.objectives[j].name, np.nan) for c in costs])
        return out

    def unsure(self, costs: Sequence[Mapping[str, float]]) -> Floats:
        """Deviations ``(candidates, objectives)`` of the scaled losses that :meth:`known` gives, 0 where measured."""
        out = np.zeros((len(costs), len(self.objectives)))
        for j in self.priced:
            name = self.objectives[j].name
            for row in [row for row, own in enumerate(costs) if isinstance(own.get(name), Estimate)]:
                out[row, j] = self.axes[j].spread(cast(Estimate, costs[row][name]))
        return out

    def inputs(self, costs: Sequence[Mapping[str, float]]) -> Floats:
        """Known costs as features ``(candidates, columns)``: objectives first, then the others."""
        hints = np.array([[c.get(name, np.nan) for name in self.hints] for c in costs])
        hints = hints.reshape(len(costs), len(self.hints))
        return np.nan_to_num(self._inputs(self.known(costs), hints), nan=0.5)

    def features(self, params: Floats, inputs: Floats, fidelity: Floats | float = 1.0) -> Floats:
        """Parameters, known costs (see :meth:`inputs`), and the fidelity where there are rungs."""
        columns = [params, inputs]
        if self.rungs:
            columns.append(np.broadcast_to(np.asarray(fidelity, dtype=np.float64), (len(params),))[:, None])
        return np.concatenate(columns, axis=1)

    def fidelity(self, epochs: npt.ArrayLike) -> Floats:
        """0 at the lowest rung and 1 at the top, in the logarithm of the epochs."""
        if len(self.rungs) < 2:
            return np.ones_like(np.asarray(epochs, dtype=np.float64))
        low, top = np.log(self.rungs[0]), np.log(self.rungs[-1])
        trained = np.maximum(np.asarray(epochs, dtype=np.float64), 0.5 * self.rungs[0])
        unit: Floats = (np.log(trained) - low) / (top - low)
        return unit

    def data(self, seen: Observations) -> Data:
        """All that was observed, on scaled axes; a failure counts as bad as the reference point."""
        losses = np.stack([axis.scale(seen.raw[:, j]) for j, axis in enumerate(self.axes)], axis=1)
        losses[np.ix_(seen.failed, np.array(self.unknown, dtype=int))] = 1.0
        fidelity = np.where(np.isnan(seen.epochs), 1.0, self.fidelity(np.nan_to_num(seen.epochs, nan=1.0)))
        features = self.features(seen.params, self._inputs(losses, seen.hints), fidelity)
        usable = np.isfinite(features).all(axis=1)  # a trial without its known costs says nothing
        return Data(features[usable], losses[usable], seen.full[usable], seen.owners[usable])

    def _inputs(self, losses: Floats, hints: Floats) -> Floats:
        scaled = [log_scaled(hints[:, i], low, high, low > 0) for i, (low, high) in enumerate(self._spans)]
        # a hint that is missing says nothing; a missing objective makes the trial useless
        columns = [losses[:, self.priced], *(np.nan_to_num(column, nan=0.5)[:, None] for column in scaled)]
        return np.concatenate(columns, axis=1)

    def chance(self, mean: Floats, deviation: Floats, objective: int, bound: float) -> Floats:
        """Probability of being no worse than the raw value ``bound``, for warped losses ``(candidates,)``."""
        wanted = warp(self.axes[objective].scale([bound]))[0]
        within: Floats = ndtr((wanted - mean) / np.maximum(deviation, 1e-12))
        return within

    def keeping(self, mean: Floats, deviation: Floats) -> float:
        """Probability that the trained objectives ``(objectives,)`` of one candidate keep to the bounds on them."""
        names = {objective.name: j for j, objective in enumerate(self.objectives)}
        learned = [(names[name], bound) for name, bound in self.bounds.items() if names[name] in self.unknown]
        return math.prod(float(self.chance(mean[j : j + 1], deviation[j : j + 1], j, b)[0]) for j, b in learned)

    def explain(self, mean: Floats, deviation: Floats, gain: float) -> str:
        """What is expected of a candidate, in a sentence.

        Args:
            mean: ``(objectives,)`` scaled losses, warped where they are predicted.
            deviation: their uncertainty, 0 where known.
            gain: expected front gain, as a share of the whole volume.
        """
        parts = []
        for j, axis in enumerate(self.axes):
            name = axis.objective.name
            if j in self.unknown:
                raw = [axis.raw(float(unwarp(mean[j] + k * deviation[j]))) for k in (-1, 0, 1)]
                if axis.objective.unit == "fraction":  # the model knows no bounds; readers do
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
    """Known costs that are no objectives: a student's multiply-adds tell of its accuracy, whoever pays for them."""
    own = {o.name for o in objectives}
    return tuple(name for name in known if name not in own)


def _span(values: Sequence[float]) -> tuple[float, float]:
    finite = np.array(values)[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def front_owners(data: Data) -> list[int]:
    """Numbers of the complete trials on the front."""
    rows = np.flatnonzero(data.full)
    if len(rows) == 0:
        return []
    owners: list[int] = data.owners[rows[pareto.nondominated_mask(data.losses[rows])]].tolist()
    return [number for number in owners if number >= 0]


def _latest(seen: Observations, measured: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The row of the highest rung of each trial, in the order of the trials."""
    rows = np.flatnonzero(measured)
    order = rows[np.lexsort((np.where(seen.full, np.inf, seen.epochs)[rows], seen.owners[rows]))]
    last = np.append(np.diff(seen.owners[order]) != 0, True)
    latest: npt.NDArray[np.int64] = order[last]
    return latest


def _cost_axis(objective: Objective, column: Floats, seen: Observations, sample: CandidateBatch) -> ObjectiveAxis:
    measured = np.isfinite(column) & ~seen.failed
    priced = [float(costs[objective.name]) for costs in sample.costs if objective.name in costs]
    values = [*priced, *column[measured].tolist()]
    best = min(values) if objective.direction == "minimize" else max(values)
    return ObjectiveAxis(objective, best, spared(objective, values)[1])


def _trained_axis(
    objective: Objective, column: Floats, seen: Observations, bound: float | None, first: int
) -> ObjectiveAxis:
    """From the reference to the best; a ``bound`` that asks for more than the reference takes its place."""
    sign = -1.0 if objective.direction == "maximize" else 1.0
    measured = np.isfinite(column) & ~seen.failed
    # the first trials, not the first full trainings: who came to the top rung was chosen, and is better than most
    witnesses = sign * column[_latest(seen, measured)[:first]]
    best = float((sign * column[measured]).min())
    reference = float(np.quantile(witnesses, REFERENCE_QUANTILE))
    if best == reference:
        reference = best + (abs(best) or 1.0) * 1e-3
    if bound is not None and sign * bound < reference:
        wanted, length = sign * bound, reference - best
        reference = max(wanted, best)  # until a trial is within the bound, whatever comes nearer to it is a gain
        # the axis keeps a length where hardly a trial, or none, is within the bound
        best = min(best, wanted - BEYOND * length)
    return ObjectiveAxis(objective, sign * best, sign * reference)
