"""A study's outcomes on scaled axes: the numbers that the model is given, and the words that explain its choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill.records import Objective
from autodistill.search import pareto
from autodistill.search.features import Encoder
from autodistill.search.history import Outcome
from autodistill.search.model import Axis, Data

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Candidates side by side with their known costs and their parameters as features."""

    values: list[dict[str, Any]]
    costs: list[Mapping[str, float]]
    params: Floats

    def take(self, rows: Sequence[int]) -> Pool:
        """Some of them."""
        return Pool([self.values[i] for i in rows], [self.costs[i] for i in rows], self.params[list(rows)])

    def join(self, other: Pool) -> Pool:
        """These, then the others."""
        params = np.concatenate([self.params, other.params])
        return Pool(self.values + other.values, self.costs + other.costs, params)


class View:
    """Scaled axes of a study.

    Args:
        objectives: in the study's order.
        known: names of the costs that are known before training.
        encoder: parameters to features.
        outcomes: the trials.
        sample: random candidates: the known costs span what they and the trials have.
        rungs: cumulative epochs of the rungs; empty when every trial is a full training.
    """

    def __init__(
        self,
        objectives: tuple[Objective, ...],
        known: Sequence[str],
        encoder: Encoder,
        outcomes: Sequence[Outcome],
        *,
        sample: Pool,
        rungs: Sequence[float] = (),
    ) -> None:
        self.objectives, self._encoder = objectives, encoder
        self.rungs = tuple(rungs)
        self.unknown = tuple(j for j, o in enumerate(objectives) if o.name not in known)
        self.priced = tuple(j for j in range(len(objectives)) if j not in self.unknown)
        self.axes = tuple(_axis(o, outcomes, sample, o.name in known) for o in objectives)

    @property
    def groups(self) -> tuple[int, ...]:
        """Group of every feature column."""
        last = len(self._encoder.names)
        extra = len(self.priced) + bool(self.rungs)
        return (*self._encoder.groups, *range(last, last + extra))

    @property
    def trend_columns(self) -> tuple[int, ...]:
        """The known costs."""
        start = self._encoder.starts[-1]
        return tuple(range(start, start + len(self.priced)))

    def known(self, costs: Sequence[Mapping[str, float]]) -> Floats:
        """Scaled losses ``(candidates, objectives)``, NaN where they are to be predicted."""
        out = np.full((len(costs), len(self.objectives)), np.nan)
        for j in self.priced:
            out[:, j] = self.axes[j].scale([c[self.objectives[j].name] for c in costs])
        return out

    def features(self, params: Floats, known: Floats, fidelity: Floats | float = 1.0) -> Floats:
        """Parameters, known costs, and the fidelity where there are rungs."""
        columns = [params, known[:, self.priced]]
        if self.rungs:
            columns.append(np.broadcast_to(np.asarray(fidelity, dtype=np.float64), (len(params),))[:, None])
        return np.concatenate(columns, axis=1)

    def fidelity(self, epochs: npt.ArrayLike) -> Floats:
        """0 at the lowest rung and 1 at the top, in the logarithm of the epochs."""
        if len(self.rungs) < 2:
            return np.ones_like(np.asarray(epochs, dtype=np.float64))
        low, top = np.log(self.rungs[0]), np.log(self.rungs[-1])
        unit: Floats = (np.log(np.asarray(epochs, dtype=np.float64)) - low) / (top - low)
        return unit

    def data(self, outcomes: Sequence[Outcome], costs: Sequence[Mapping[str, float]]) -> Data:
        """All that was observed: full trainings and, where there are rungs, what the lower rungs showed.

        Args:
            outcomes: the trials.
            costs: known costs of each.
        """
        rows: list[tuple[int, float, list[float], bool]] = []
        for i, o in enumerate(outcomes):
            rows += [(i, f, row, full) for f, row, full in self._observed(o)]
        which = [i for i, *_ in rows]
        params = self._encoder.encode([o.values for o in outcomes])[which]
        raw = np.array([row for _, _, row, _ in rows]).reshape(len(rows), len(self.objectives))
        losses = np.stack([axis.scale(raw[:, j]) for j, axis in enumerate(self.axes)], axis=1)
        known = self.known([costs[i] for i in which])
        losses[:, self.priced] = np.where(np.isnan(losses), known, losses)[:, self.priced]
        return Data(
            self.features(params, known, np.array([f for _, f, _, _ in rows])),
            losses,
            np.array([full for *_, full in rows], dtype=bool),
            np.array([outcomes[i].number for i in which], dtype=np.int64),
        )

    def _observed(self, o: Outcome) -> list[tuple[float, list[float], bool]]:
        """``(fidelity, raw objective values, top rung)`` of one trial."""
        out = []
        for epochs, metrics in o.curve if self.rungs else ():
            if epochs < self.rungs[-1]:
                out.append((float(self.fidelity(epochs)), self._row(metrics), False))
        if o.kind == "complete":
            out.append((1.0, self._row(o.final), True))
        if o.kind == "failed":  # bad, but finite: as a candidate at the reference point
            out.append((1.0, [np.nan if j in self.priced else a.reference for j, a in enumerate(self.axes)], False))
        return out

    def _row(self, metrics: Mapping[str, float]) -> list[float]:
        return [metrics.get(o.name, np.nan) for o in self.objectives]

    def explain(self, mean: Floats, deviation: Floats, gain: float) -> str:
        """What is expected of a candidate, in a sentence.

        Args:
            mean: ``(objectives,)`` scaled losses.
            deviation: their uncertainty, 0 where known.
            gain: expected front gain, as a share of the whole volume.
        """
        parts = []
        for j, axis in enumerate(self.axes):
            value = f"{axis.objective.name} {axis.raw(float(mean[j])):.4g}"
            if j in self.unknown:
                value += f" ± {abs(axis.raw(float(deviation[j])) - axis.raw(0.0)):.2g} expected"
            parts.append(value)
        return f"{', '.join(parts)}: may add {gain:.2g} of the front's volume"


def best_front(outcomes: Sequence[Outcome], data: Data) -> list[Outcome]:
    """Complete trials on the front."""
    by_number = {o.number: o for o in outcomes}
    rows = np.flatnonzero(data.full)
    if len(rows) == 0:
        return []
    mask = pareto.nondominated_mask(data.losses[rows])
    return [by_number[number] for number in data.owners[rows[mask]].tolist() if number in by_number]


def _axis(objective: Objective, outcomes: Sequence[Outcome], sample: Pool, known: bool) -> Axis:
    name, sign = objective.name, -1.0 if objective.direction == "maximize" else 1.0
    if known:
        seen = [sign * costs[name] for costs in sample.costs]
        seen += [sign * o.final[name] for o in outcomes if name in o.final]
        return Axis(objective, sign * min(seen), sign * max(seen))
    finals = [sign * o.final[name] for o in outcomes if name in o.final]
    last = [sign * o.curve[-1][1][name] for o in outcomes if o.curve and name in o.curve[-1][1]]
    values = finals if len(finals) >= 8 or not last else finals + last
    best, reference = sign * min(values), sign * float(np.quantile(values[:15], 0.9))
    if best == reference:
        reference = best + sign * (abs(best) or 1.0) * 1e-3
    return Axis(objective, best, reference)
