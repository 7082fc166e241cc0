"""Local search for better recipes of promising students.

Draws and single moves seldom hit the best of several numbers at once (learning rate, weight decay, temperature, weight
of the loss). The numbers that cost nothing, those outside the student, are moved together here, as features: a few
hundred moves are judged by one call of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import CategoricalDistribution

from autodistill.search import proposals
from autodistill.search.features import Encoder
from autodistill.search.space import Space
from autodistill.search.view import Pool

Floats = npt.NDArray[np.float64]

ROUNDS, MOVES = 5, 48
WIDTH, SHRINK = 0.2, 0.6
"""Deviation of the first round's moves, in units of a parameter's range, and how it falls from round to round."""


def polish(
    pool: Pool,
    start: Floats,
    space: Space,
    encoder: Encoder,
    gain: Callable[[Floats, npt.NDArray[np.int64]], Floats],
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Each candidate with better numbers, where some are found.

    Args:
        pool: promising candidates.
        start: their gains.
        space: what they belong to.
        encoder: its parameters as features.
        gain: of encoded parameters ``(n, columns)`` and the rows of ``pool`` whose students they train, ``(n,)``.
        rng: of the moves.
    """
    free = _free(encoder)
    if not free or not pool.values:
        return []
    columns = np.array([encoder.starts[g] for g in free], dtype=int)
    active = np.array([[encoder.names[g] in values for g in free] for values in pool.values])
    if not active.any():
        return []
    params, best = pool.params.copy(), start.copy()
    count = len(params)
    rows = np.repeat(np.arange(count), MOVES)
    for k in range(ROUNDS):
        # half of the numbers move at a time: where few of them matter, a step of all is mostly a loss
        moving = active[:, None, :] & (rng.random((count, MOVES, len(free))) < 0.5)
        moved = np.repeat(params[:, None, :], MOVES, axis=1)
        moved[:, :, columns] += moving * rng.normal(0.0, WIDTH * SHRINK**k, moving.shape)
        moved[:, :, columns] = np.clip(moved[:, :, columns], 0.0, 1.0)
        gains = gain(moved.reshape(len(rows), -1), rows).reshape(count, MOVES)
        found = gains.argmax(axis=1)
        better = gains[np.arange(count), found] > best
        params[better] = moved[better, found[better]]
        best = np.where(better, gains.max(axis=1), best)
    out = []
    for i in np.flatnonzero(best > start).tolist():
        numbers = {
            encoder.names[g]: proposals.from_unit(encoder.distributions[g], min(float(params[i, column]), 1.0 - 1e-9))
            for g, column, on in zip(free, columns, active[i], strict=True)
            if on
        }
        out.append(proposals.complete(space, {**pool.values[i], **numbers}, rng))
    return out


def _free(encoder: Encoder) -> list[int]:
    """Groups of the numbers that do not change what a candidate costs."""
    pairs = zip(encoder.names, encoder.distributions, strict=True)
    return [
        g
        for g, (name, d) in enumerate(pairs)
        if not isinstance(d, CategoricalDistribution) and not name.startswith("student.")
    ]
