"""The front and what is believed about candidates: surrogates, scaled losses, expected gains.

Losses are scaled so that the reference point is 1 in every objective. Known objectives span the costs of a sample
of the space (logarithmic where the objective says so). A trained objective spans from a low quantile of the first
trials, kept for the whole study, to the best value. It is learned warped: ``log(loss + 1)``, because students near the
best differ by less than bad ones do, and far less is to be gained beyond the best than may be lost; and compressed
beyond the reference, because how bad a bad candidate is tells little about the front.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from autodistill.core.records import Estimate, Objective
from autodistill.search.model import acquisition
from autodistill.search.objectives import pareto
from autodistill.search.space.encoding import log_scaled

if TYPE_CHECKING:
    from autodistill.search.model.gaussian_process import Surrogate

Floats = npt.NDArray[np.float64]

MOST_OBSERVATIONS = 300
"""The process sees at most this many observations; its cost grows with their cube."""

SHIFT = 1.0
"""A trained loss is learned as ``log(loss + SHIFT)``: nothing is expected to be better than the best by more than what
lies between it and the reference."""

COMPRESSION = 0.3
"""How fast losses beyond the reference are compressed: its ``k`` in ``1 + k log(1 + (loss - 1) / k)``.

Much less, and students at chance level look as if they lay just beyond the reference, so that cheap ones are tried over
and over; without compression they are all that the model explains.
"""

CAPACITY = 1.0
"""Slope of the prior mean over the known costs, in warped losses: with 1, the cheapest student is expected at the
reference and the costliest at the best."""


@dataclass(frozen=True)
class ObjectiveAxis:
    """How one objective is scaled: 0 at ``best``, 1 at ``reference``; both are raw values."""

    objective: Objective
    best: float
    reference: float

    def scale(self, values: npt.ArrayLike) -> Floats:
        """Scaled losses; NaN stays NaN."""
        low, high = sorted((self.best, self.reference))
        unit = log_scaled(values, low, high, self.objective.log and low > 0)
        return unit if self.best <= self.reference else 1.0 - unit

    def spread(self, estimate: Estimate) -> float:
        """Deviation of the scaled loss of a predicted value."""
        if self.objective.log and min(self.best, self.reference) > 0:
            length = math.log(self.reference / self.best)
        else:  # of a log-normal value with a small deviation
            length = (self.reference - self.best) / max(abs(estimate), 1e-300)
        return estimate.deviation / max(abs(length), 1e-9)

    def raw(self, scaled: float) -> float:
        """The value at a scaled loss."""
        if self.objective.log and min(self.best, self.reference) > 0:
            return float(self.best * (self.reference / self.best) ** scaled)
        return self.best + scaled * (self.reference - self.best)


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

    def believing(self, features: Floats, losses: Floats) -> Data:
        """With candidates as if they had finished; their owner is -1."""
        return Data(
            np.concatenate([self.features, features]),
            np.concatenate([self.losses, losses]),
            np.concatenate([self.full, np.ones(len(losses), dtype=bool)]),
            np.concatenate([self.owners, np.full(len(losses), -1, dtype=np.int64)]),
        )


class InputLayout(Protocol):
    """What a model must know of the study's axes."""

    @property
    def unknown(self) -> tuple[int, ...]:
        """Indices of the objectives that are predicted."""

    @property
    def quality(self) -> tuple[int, ...]:
        """Those of them that capacity serves."""

    @property
    def groups(self) -> tuple[int, ...]:
        """Group of every feature column."""

    @property
    def shared(self) -> tuple[tuple[int, ...], ...]:
        """Feature columns of the same choice in different parameters."""

    @property
    def lengths(self) -> Floats:
        """Typical length scale of every group."""


class Model:
    """Beliefs about scaled losses, given data, around a prior mean that grows with what a student may cost.

    Args:
        data: what was observed.
        layout: which objectives are predicted, and what the feature columns are.
        thetas: hyperparameters of earlier fits by objective; updated in place.
        optimize: fit the hyperparameters again.
        rng: for the choice of a subset.
    """

    def __init__(
        self, data: Data, layout: InputLayout, *, thetas: dict[int, Floats], optimize: bool, rng: np.random.Generator
    ) -> None:
        self.observed = data
        self._layout, self._thetas = layout, thetas
        self._shifts = dict.fromkeys(layout.unknown, SHIFT)
        self.surrogates = {j: self._fit(j, optimize, rng) for j in layout.unknown}
        self._boxes = pareto.nondominated_boxes(data.losses[data.full], np.ones(data.losses.shape[1]))

    def _fit(self, objective: int, optimize: bool, rng: np.random.Generator) -> Surrogate:
        from autodistill.search.model import (
            gaussian_process as surrogate,  # scikit-learn takes half a second, and who only reads fits nothing
        )

        data = self.observed
        rows = np.flatnonzero(np.isfinite(data.losses[:, objective]))
        if len(rows) > MOST_OBSERVATIONS:
            rows = _subset(data, rows, rng)
        fitted = surrogate.fit(
            data.features[rows],
            warp(data.losses[rows, objective]) - self._capacity(objective, data.losses[rows]),
            groups=self._layout.groups,
            shared=self._layout.shared,
            lengths=self._layout.lengths,
            theta=self._thetas.get(objective),
            optimize=optimize or objective not in self._thetas,
        )
        self._thetas[objective] = fitted.theta
        return fitted

    def believe(self, features: Floats, known: Floats, unsure: Floats) -> tuple[Floats, Floats]:
        """Mean and deviation ``(candidates, objectives)`` of scaled losses; of warped ones where they are learned.

        Args:
            features: of the candidates, at the fidelity of interest.
            known: scaled losses, NaN in the columns that are learned.
            unsure: deviation of the known ones, 0 where they are measured.
        """
        mean, deviation = known.copy(), unsure.copy()
        for j, fitted in self.surrogates.items():
            mean[:, j], deviation[:, j] = fitted.predict(features)
            mean[:, j] += self._capacity(j, known)
        return mean, deviation

    def _capacity(self, objective: int, losses: Floats) -> Floats:
        """Prior mean of warped losses ``(candidates,)``: what costs less is expected to be worse."""
        priced = [j for j in range(losses.shape[1]) if j not in self._layout.unknown]
        if not priced or objective not in self._layout.quality:
            return np.zeros(len(losses))
        best, reference = warp(np.array([0.0, 1.0]))
        mean: Floats = CAPACITY * (best + (reference - best) * (1.0 - losses[:, priced].mean(axis=1)))
        return mean

    def expected(self, mean: Floats) -> Floats:
        """Scaled losses, medians where they are learned, from the means of :meth:`believe`."""
        losses = mean.copy()
        predicted = list(self.surrogates)
        losses[..., predicted] = unwarp(mean[..., predicted])
        return losses

    def gain(self, mean: Floats, deviation: Floats) -> Floats:
        """Expected hypervolume improvement ``(candidates,)`` of what :meth:`believe` says."""
        # a candidate without one of its known costs cannot be judged: it comes last
        return np.nan_to_num(acquisition.expected_gain(mean, deviation, *self._boxes, shifts=self._shifts), nan=0.0)

    def gain_along(self, mean: Floats, deviation: Floats, objective: int, grid: Floats) -> Floats:
        """Front gain if one objective comes out at its mean plus ``grid`` deviations, ``(candidates, grid)``."""
        points = np.exp(mean[:, objective, None] + deviation[:, objective, None] * grid) - SHIFT
        gain = acquisition.gain_along(
            mean, deviation, *self._boxes, objective=objective, points=points, shifts=self._shifts
        )
        return np.nan_to_num(gain, nan=0.0)

    def resolved(self, stages: Sequence[Floats], objective: int) -> Floats:
        """Share of the final loss's variance that observing each stage resolves, ``(candidates, stages)``.

        Args:
            stages: features of the candidates at their remaining rungs; the last is the top.
            objective: which one is observed.
        """
        fitted, top = self.surrogates[objective], stages[-1]
        final = np.maximum(fitted.covariance(top, top), 1e-18)
        noise = fitted.noise
        shares = [fitted.covariance(s, top) ** 2 / (fitted.covariance(s, s) + noise) / final for s in stages[:-1]]
        shares.append(np.ones(len(top)))
        return np.clip(np.maximum.accumulate(np.stack(shares, axis=1), axis=1), 0.0, 1.0)


def warp(losses: Floats) -> Floats:
    """Scaled losses as they are learned: the logarithm up to the reference point, and once more beyond it."""
    beyond = np.maximum(losses - 1.0, 0.0)
    squashed = np.where(losses > 1.0, 1.0 + COMPRESSION * np.log1p(beyond / COMPRESSION), losses)
    return np.log(np.maximum(squashed, 1e-3 - SHIFT) + SHIFT)


def unwarp(warped: Floats) -> Floats:
    """The inverse of :func:`warp`."""
    squashed = np.exp(warped) - SHIFT
    beyond = 1.0 + COMPRESSION * np.expm1(np.minimum(np.maximum(squashed - 1.0, 0.0) / COMPRESSION, 50.0))
    return np.where(squashed > 1.0, beyond, squashed)


def _subset(data: Data, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Half the best ranks, a quarter the newest, the rest at random."""
    size = MOST_OBSERVATIONS
    chosen: dict[int, None] = {}
    for part in (rows[data.full[rows]], rows[~data.full[rows]]):
        wanted = size // 2 - len(chosen)
        if wanted > 0 and len(part):
            ranks = pareto.nondominated_ranks(np.nan_to_num(data.losses[part], nan=2.0))
            chosen.update(dict.fromkeys(part[np.argsort(ranks, kind="stable")[:wanted]].tolist()))
    chosen.update(dict.fromkeys(rows[-size // 4 :].tolist()))
    for row in rng.permutation(rows).tolist():
        if len(chosen) >= size:
            break
        chosen[row] = None
    return np.array(sorted(chosen), dtype=np.int64)
