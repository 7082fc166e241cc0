"""The front and what is believed about candidates: surrogates, scaled losses, expected gains.

Losses are scaled so that the reference point is 1 in every objective. Known objectives span the costs of a sample of the
space (logarithmic where the objective says so). A trained objective spans from a low quantile of the first trials, kept
for the whole study, to the best value; below the reference it is compressed, because how bad a bad candidate is tells
little about the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodistill.records import Objective
from autodistill.search import acquisition, pareto, surrogate
from autodistill.search.features import Encoder, log_scaled

Floats = npt.NDArray[np.float64]

MOST_OBSERVATIONS = 300
"""The process sees at most this many observations; its cost grows with their cube."""


@dataclass(frozen=True)
class Axis:
    """How one objective is scaled: 0 at ``best``, 1 at ``reference``; both are raw values."""

    objective: Objective
    best: float
    reference: float

    def scale(self, values: npt.ArrayLike) -> Floats:
        """Scaled losses; NaN stays NaN."""
        low, high = sorted((self.best, self.reference))
        unit = log_scaled(values, low, high, self.objective.log and low > 0)
        return unit if self.best <= self.reference else 1.0 - unit


@dataclass(frozen=True)
class Data:
    """Observations of the candidates.

    Attributes:
        features: ``(n, columns)``: parameters, scaled known costs, fidelity.
        losses: ``(n, objectives)`` scaled; NaN where an objective was not measured.
        full: ``(n,)`` true at the top rung: these may be on the front.
        owners: ``(n,)`` trial numbers.
    """

    features: Floats
    losses: Floats
    full: npt.NDArray[np.bool_]
    owners: npt.NDArray[np.int64]


class Model:
    """Beliefs about scaled losses, given data.

    Args:
        data: what was observed.
        unknown: indices of the objectives that are predicted.
        groups: group of every feature column.
        trend_columns: columns with a linear trend.
        thetas: hyperparameters of earlier fits by objective; updated in place.
        optimize: fit the hyperparameters again.
        rng: for the choice of a subset.
    """

    def __init__(
        self,
        data: Data,
        unknown: Sequence[int],
        *,
        groups: tuple[int, ...],
        trend_columns: tuple[int, ...],
        thetas: dict[int, Floats],
        optimize: bool,
        rng: np.random.Generator,
    ) -> None:
        self.data = data
        self.unknown = tuple(unknown)
        self.groups, self.trend_columns, self.thetas = groups, trend_columns, thetas
        self.surrogates = {j: self._fit(j, optimize, rng) for j in self.unknown}
        self.front = data.losses[data.full]
        self._boxes = pareto.nondominated_boxes(self.front, np.ones(data.losses.shape[1]))

    def _fit(self, objective: int, optimize: bool, rng: np.random.Generator) -> surrogate.Surrogate:
        rows = np.flatnonzero(np.isfinite(self.data.losses[:, objective]))
        if len(rows) > MOST_OBSERVATIONS:
            rows = _subset(self.data, rows, rng)
        fitted = surrogate.fit(
            self.data.features[rows],
            squash(self.data.losses[rows, objective]),
            groups=self.groups,
            trend_columns=self.trend_columns,
            theta=self.thetas.get(objective),
            optimize=optimize or objective not in self.thetas,
        )
        self.thetas[objective] = fitted.theta
        return fitted

    def believe(self, features: Floats, known: Floats) -> tuple[Floats, Floats]:
        """Mean and deviation of scaled losses ``(candidates, objectives)``.

        Args:
            features: of the candidates, at the fidelity of interest.
            known: scaled losses, NaN in the columns to predict.
        """
        mean, deviation = known.copy(), np.zeros_like(known)
        for j, fitted in self.surrogates.items():
            mean[:, j], deviation[:, j] = fitted.predict(features)
        return mean, deviation

    def gain(self, mean: Floats, deviation: Floats) -> Floats:
        """Expected hypervolume improvement ``(candidates,)``."""
        return acquisition.expected_gain(mean, deviation, *self._boxes)


def squash(losses: Floats) -> Floats:
    """Identity up to the reference point, logarithmic beyond it."""
    return np.where(losses > 1.0, 1.0 + 0.25 * np.log1p(np.maximum(losses - 1.0, 0.0) / 0.25), losses)


def _subset(data: Data, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Half the best ranks, a quarter the newest, the rest at random."""
    size = MOST_OBSERVATIONS
    ranks = pareto.nondominated_ranks(np.nan_to_num(data.losses[rows], nan=2.0)) + 1000 * ~data.full[rows]
    chosen = dict.fromkeys(rows[np.argsort(ranks, kind="stable")[: size // 2]].tolist())
    chosen.update(dict.fromkeys(rows[-size // 4 :].tolist()))
    for row in rng.permutation(rows).tolist():
        if len(chosen) >= size:
            break
        chosen[row] = None
    return np.array(sorted(chosen), dtype=np.int64)


def encoder_groups(encoder: Encoder, extra: int) -> tuple[int, ...]:
    """Groups of the encoder's columns, then ``extra`` columns that are groups of their own."""
    last = len(encoder.names)
    return (*encoder.groups, *range(last, last + extra))
