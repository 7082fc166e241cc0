"""Local search for better recipes of promising students.

Random draws and single moves seldom find the best combination of several numbers (learning rate, weight decay,
temperature, weight of the loss). The numbers outside the student, which do not change its known costs, are moved
together here in feature space: one call of the model scores a few hundred moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill.search.model.model_input import CandidateBatch
from autodistill.search.space import moves
from autodistill.search.space.distributions import from_unit
from autodistill.search.space.encoding import Encoder
from autodistill.search.space.space import Space

Floats = npt.NDArray[np.float64]

SHRINK = 0.4
"""Factor on a candidate's step width after a round without improvement."""


@dataclass(frozen=True)
class LocalSearchEffort:
    """Size of a local search.

    Attributes:
        candidates: number of candidates to improve.
        rounds: number of rounds of moves.
        moves: moves per candidate and round.
        width: standard deviation of the first round's moves, as a share of a parameter's range.
    """

    candidates: int
    rounds: int
    moves: int
    width: float


FULL, BRIEF = LocalSearchEffort(4, 4, 40, 0.2), LocalSearchEffort(3, 3, 32, 0.12)


def search_locally(
    pool: CandidateBatch,
    start: Floats,
    space: Space,
    encoder: Encoder,
    gain: Callable[[Floats, npt.NDArray[np.int64]], Floats],
    rng: np.random.Generator,
    effort: LocalSearchEffort,
) -> list[dict[str, Any]]:
    """Return improved versions of the candidates for which local search finds better numbers.

    Args:
        pool: promising candidates.
        start: their gains, ``(candidates,)``.
        space: search space of the candidates.
        encoder: encoder of its parameters.
        gain: function of encoded parameters ``(n, columns)`` and the rows of ``pool`` they derive from ``(n,)``.
        rng: random numbers of the moves.
        effort: size of the search; ``pool`` must already hold the chosen candidates.
    """
    numbers = moves.free_numbers(space)
    free = [g for g, name in enumerate(encoder.names) if name in numbers]
    if not free or not pool.values:
        return []
    columns = np.array([encoder.starts[g] for g in free], dtype=int)
    active = np.array([[encoder.names[g] in values for g in free] for values in pool.values])
    if not active.any():
        return []
    params, best = pool.params.copy(), start.copy()
    count = len(params)
    rows = np.repeat(np.arange(count), effort.moves)
    width = np.full((count, 1, 1), effort.width)
    for _ in range(effort.rounds):
        # half of the numbers move at a time: if few of them matter, moving all is mostly a loss
        moving = active[:, None, :] & (rng.random((count, effort.moves, len(free))) < 0.5)
        moved = np.repeat(params[:, None, :], effort.moves, axis=1)
        moved[:, :, columns] += moving * width * rng.normal(size=moving.shape)
        moved[:, :, columns] = np.clip(moved[:, :, columns], 0.0, 1.0)  # moves, unlike draws, can reach the bounds
        gains = gain(moved.reshape(len(rows), -1), rows).reshape(count, effort.moves)
        found = gains.argmax(axis=1)
        better = gains[np.arange(count), found] > best
        params[better] = moved[better, found[better]]
        best = np.where(better, gains.max(axis=1), best)
        width[~better] *= SHRINK
    out = []
    for i in np.flatnonzero(best > start).tolist():
        better_ones = {
            encoder.names[g]: from_unit(encoder.distributions[g], float(params[i, column]))
            for g, column, on in zip(free, columns, active[i], strict=True)
            if on
        }
        out.append(moves.complete(space, {**pool.values[i], **better_ones}, rng))
    return out
