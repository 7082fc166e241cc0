"""The front and the predictions for candidates: surrogates, scaled losses, expected gains.

Losses are scaled so that the reference point is 1 in every objective. Known objectives span the costs of a sample of
the space (on a logarithmic scale if the objective has one). A trained objective spans from a quantile of the first
trials, fixed for the whole study, to the best value. It is learned as ``log(loss + 1)``, because students near the best
differ by less than bad ones do, and far less can be gained beyond the best than lost. Beyond the reference it is also
compressed, because how bad a bad candidate is says little about the front.
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
"""Most observations that the process is fitted to; its cost grows with their cube."""

SHIFT = 1.0
"""A trained loss is learned as ``log(loss + SHIFT)``: no candidate is expected to improve on the best by more than the
distance from the best to the reference."""

COMPRESSION = 0.3
"""Compression of losses beyond the reference: ``k`` in ``1 + k log(1 + (loss - 1) / k)``.

With a much smaller value, students at chance level appear to lie just beyond the reference, so that cheap ones are
tried over and over. Without compression, such students dominate the fit.
"""

CAPACITY = 1.0
"""Slope of the prior mean over the known costs, in warped losses. With 1, the prior mean of the cheapest student is the
reference and that of the costliest is the best."""


@dataclass(frozen=True)
class ObjectiveAxis:
    """Scaled axis of one objective: 0 at ``best``, 1 at ``reference``; both are raw values."""

    objective: Objective
    best: float
    reference: float

    def scale(self, values: npt.ArrayLike) -> Floats:
        """Return scaled losses; NaN stays NaN."""
        low, high = sorted((self.best, self.reference))
        unit = log_scaled(values, low, high, self.objective.log and low > 0)
        return unit if self.best <= self.reference else 1.0 - unit

    def spread(self, estimate: Estimate) -> float:
        """Return the standard deviation of the scaled loss of a predicted cost."""
        if self.objective.log and min(self.best, self.reference) > 0:
            length = math.log(self.reference / self.best)
        else:  # first-order approximation for a log-normal value with a small deviation
            length = (self.reference - self.best) / max(abs(estimate), 1e-300)
        return estimate.deviation / max(abs(length), 1e-9)

    def raw(self, scaled: float) -> float:
        """Return the raw value at a scaled loss."""
        if self.objective.log and min(self.best, self.reference) > 0:
            return float(self.best * (self.reference / self.best) ** scaled)
        return self.best + scaled * (self.reference - self.best)


@dataclass(frozen=True)
class Data:
    """Observations as inputs and targets of the model.

    Attributes:
        features: ``(n, columns)``: parameters, scaled known costs, fidelity.
        losses: ``(n, objectives)`` scaled losses; NaN if an objective was not measured.
        full: ``(n,)`` true at the top rung; only these can be on the front.
        owners: ``(n,)`` trial numbers; -1 for predicted rows.
    """

    features: Floats
    losses: Floats
    full: npt.NDArray[np.bool_]
    owners: npt.NDArray[np.int64]

    def with_predicted(self, features: Floats, losses: Floats) -> Data:
        """Return the data with further candidates as if they had finished with ``losses``; their owner is -1."""
        return Data(
            np.concatenate([self.features, features]),
            np.concatenate([self.losses, losses]),
            np.concatenate([self.full, np.ones(len(losses), dtype=bool)]),
            np.concatenate([self.owners, np.full(len(losses), -1, dtype=np.int64)]),
        )


class InputLayout(Protocol):
    """Interface of the study's axes, as the model uses it."""

    @property
    def unknown(self) -> tuple[int, ...]:
        """Indices of the objectives that are predicted."""

    @property
    def quality(self) -> tuple[int, ...]:
        """Indices of the predicted objectives that improve with capacity."""

    @property
    def groups(self) -> tuple[int, ...]:
        """Group number of every feature column."""

    @property
    def shared(self) -> tuple[tuple[int, ...], ...]:
        """Feature columns of the same choice in different parameters."""

    @property
    def lengths(self) -> Floats:
        """Typical length scale of every group."""


class Model:
    """Predictions of scaled losses, with a prior mean that improves with the known costs of a student.

    Args:
        data: observations.
        layout: which objectives are predicted, and the groups of the feature columns.
        thetas: hyperparameters of earlier fits by objective; new ones are added in place.
        optimize: whether to fit the hyperparameters again.
        rng: random numbers for the choice of a subset.
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
            gaussian_process as surrogate,  # scikit-learn takes half a second to import; readers of a study fit nothing
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
        if optimize or objective not in self._thetas:
            self._thetas[objective] = fitted.theta
        return fitted

    def predict(self, features: Floats, known: Floats, cost_deviations: Floats) -> tuple[Floats, Floats]:
        """Predict mean and deviation ``(candidates, objectives)`` of scaled losses, warped if they are learned.

        Args:
            features: ``(candidates, columns)`` at the fidelity of interest.
            known: scaled losses, NaN in the columns that are learned.
            cost_deviations: standard deviations of the known losses, 0 if measured.
        """
        mean, deviation = known.copy(), cost_deviations.copy()
        for j, fitted in self.surrogates.items():
            mean[:, j], deviation[:, j] = fitted.predict(features)
            mean[:, j] += self._capacity(j, known)
        return mean, deviation

    def _capacity(self, objective: int, losses: Floats) -> Floats:
        """Return the prior mean of warped losses ``(candidates,)``: cheaper students are expected to be worse."""
        known_objectives = [j for j in range(losses.shape[1]) if j not in self._layout.unknown]
        if not known_objectives or objective not in self._layout.quality:
            return np.zeros(len(losses))
        best, reference = warp(np.array([0.0, 1.0]))
        mean: Floats = CAPACITY * (best + (reference - best) * (1.0 - losses[:, known_objectives].mean(axis=1)))
        return mean

    def expected(self, mean: Floats) -> Floats:
        """Return scaled losses from the means of :meth:`predict`; medians if they are learned."""
        losses = mean.copy()
        predicted = list(self.surrogates)
        losses[..., predicted] = unwarp(mean[..., predicted])
        return losses

    def gain(self, mean: Floats, deviation: Floats) -> Floats:
        """Return the expected hypervolume improvement ``(candidates,)`` for the results of :meth:`predict`."""
        # NaN: a candidate with an unknown cost cannot be scored and comes last
        return np.nan_to_num(acquisition.expected_gain(mean, deviation, *self._boxes, shifts=self._shifts), nan=0.0)

    def gain_along(self, mean: Floats, deviation: Floats, objective: int, grid: Floats) -> Floats:
        """Return the gain if one objective is at its mean plus ``grid`` deviations, ``(candidates, grid)``."""
        points = np.exp(mean[:, objective, None] + deviation[:, objective, None] * grid) - SHIFT
        gain = acquisition.gain_along(
            mean, deviation, *self._boxes, objective=objective, points=points, shifts=self._shifts
        )
        return np.nan_to_num(gain, nan=0.0)

    def resolved(self, stages: Sequence[Floats], objective: int) -> Floats:
        """Return the share of the final loss's variance that observing each stage resolves, ``(candidates, stages)``.

        Args:
            stages: features of the candidates at their remaining rungs; the last is the top.
            objective: index of the observed objective.
        """
        fitted, top = self.surrogates[objective], stages[-1]
        final = np.maximum(fitted.covariance(top, top), 1e-18)
        noise = fitted.noise
        shares = [fitted.covariance(s, top) ** 2 / (fitted.covariance(s, s) + noise) / final for s in stages[:-1]]
        shares.append(np.ones(len(top)))
        return np.clip(np.maximum.accumulate(np.stack(shares, axis=1), axis=1), 0.0, 1.0)


def warp(losses: Floats) -> Floats:
    """Transform scaled losses for learning: logarithm of ``loss + SHIFT``, compressed beyond the reference point."""
    beyond = np.maximum(losses - 1.0, 0.0)
    squashed = np.where(losses > 1.0, 1.0 + COMPRESSION * np.log1p(beyond / COMPRESSION), losses)
    return np.log(np.maximum(squashed, 1e-3 - SHIFT) + SHIFT)


def unwarp(warped: Floats) -> Floats:
    """Invert :func:`warp`."""
    squashed = np.exp(warped) - SHIFT
    beyond = 1.0 + COMPRESSION * np.expm1(np.minimum(np.maximum(squashed - 1.0, 0.0) / COMPRESSION, 50.0))
    return np.where(squashed > 1.0, beyond, squashed)


def _subset(data: Data, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Choose :data:`MOST_OBSERVATIONS` rows: half by best rank, a quarter the newest, the rest at random."""
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
