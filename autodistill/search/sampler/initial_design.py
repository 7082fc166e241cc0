"""The initial design: the trials that are chosen before there is enough data for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autodistill.core.records import Objective
from autodistill.search.model.model_input import CandidateBatch

Floats = npt.NDArray[np.float64]

CHOICE = 170
"""Random candidates that each trial is chosen from; choosing from all would make all seeds start alike."""


AFFORDED = 0.5
"""Share of the candidates, those with the least work, that the design is chosen from. The others would take most of its
work and reveal no more about recipes; the model's capacity prior describes them until it proposes them."""


def length(rungs: Sequence[float]) -> int:
    """Return the number of trials of the design; fewer with rungs, since no trial continues before the design ends."""
    return 8 if rungs else 11


def choose_design(
    pool: CandidateBatch,
    earlier: CandidateBatch,
    known_objectives: Sequence[Objective],
    groups: Sequence[int],
    total: int,
    rng: np.random.Generator,
    work: Floats | None = None,
) -> tuple[int, str]:
    """Return the row of the next candidate of the design, and the reason.

    Args:
        pool: new candidates with their known costs.
        earlier: candidates that were proposed before.
        known_objectives: objectives that are known costs, over which the design spreads.
        groups: index of the parameter of each feature column.
        total: number of trials of the design.
        rng: random numbers, to draw the candidates that are considered.
        work: work of one epoch of each candidate in ``pool``; equal by default.
    """
    index = len(earlier.values)
    place = f"first design, {index + 1} of {total}"
    if index == total - 1:
        row = cheapest(_losses(pool.costs, known_objectives), _losses(earlier.costs, known_objectives))
        if row is not None:
            return row, f"{place}: the cheapest student that is known"
    rows = rng.permutation(len(pool.values))
    if work is not None:
        rows = rows[work[rows] <= np.quantile(work, AFFORDED)]
    rows = rows[:CHOICE].tolist()
    some = pool.take(rows)
    row = most_different(some.params, groups, _losses(some.costs, known_objectives), earlier.params, index, total - 1)
    return rows[row], f"{place}: spread over the known costs"


def _losses(costs: Sequence[Mapping[str, float]], known_objectives: Sequence[Objective]) -> Floats:
    """Return the known costs as losses ``(candidates, objectives)``, less being better; NaN if unknown."""
    rows = [[o.loss(c.get(o.name, np.nan)) for o in known_objectives] for c in costs]
    return np.array(rows, dtype=np.float64).reshape(len(costs), len(known_objectives))


def most_different(
    features: Floats, groups: Sequence[int], costs: Floats, taken: Floats, index: int, total: int
) -> int:
    """Return the row of the candidate that adds most variety to the design.

    Candidate ``index`` of ``total`` comes from one slice of the known costs; the slices are visited in an order that
    covers the whole range early. Within the slice, it is chosen from the quarter whose choices were used least, as the
    candidate farthest from the earlier ones. Every choice of every parameter is thus observed: a model expects no gain
    from a choice without observations.

    Args:
        features: encoded candidates, ``(candidates, columns)``.
        groups: index of the parameter of each column.
        costs: known costs ``(candidates, known costs)``, less being better, maybe without columns; each is sliced in
            turn.
        taken: encoded earlier candidates, ``(taken, columns)``.
        index: number of earlier candidates.
        total: length of the design.
    """
    allowed = np.arange(len(features))
    if costs.shape[1] and total > 0:
        ranked = np.argsort(costs[:, index % costs.shape[1]], kind="stable")
        part = np.array_split(ranked, total)[_permutation(total)[index % total]]
        allowed = part if len(part) else ranked
    if len(taken) == 0:
        return int(allowed[0])
    used = _used(features[allowed], groups, taken)
    allowed = allowed[used <= np.quantile(used, 0.25) + 1e-9]
    distance = np.linalg.norm(features[allowed, None] - taken[None], axis=2).min(axis=1)
    return int(allowed[np.argmax(distance)])


def cheapest(costs: Floats, taken: Floats) -> int | None:
    """Return the candidate with the lowest sum of ranks in the known costs; ``None`` if one as cheap was taken.

    Args:
        costs: known costs ``(candidates, known costs)``, less being better.
        taken: costs of earlier candidates, ``(taken, known costs)``, NaN if unknown.
    """
    if costs.size == 0:
        return None
    ranks = np.argsort(np.argsort(costs, axis=0, kind="stable"), axis=0, kind="stable")
    row = int(np.argmin(ranks.sum(axis=1)))
    return None if (taken <= costs[row]).all(axis=1).any() else row


def _used(features: Floats, groups: Sequence[int], taken: Floats) -> Floats:
    """Return how often the choices of each candidate were used: squared and summed over categorical parameters."""
    of, used = np.asarray(groups), np.zeros(len(features))
    for group in set(groups):
        columns = of == group
        if columns.sum() > 1:
            gap = np.linalg.norm(features[:, None, columns] - taken[None, :, columns], axis=2)
            used += np.maximum(1.0 - gap, 0.0).sum(axis=1) ** 2  # different choices have distance 1
    return used


def _permutation(total: int) -> list[int]:
    """Return 0 … total - 1 in bit-reversed order, of which every prefix covers the range."""
    bits = max(1, (total - 1).bit_length())
    reversed_ = [int(format(i, f"0{bits}b")[::-1], 2) for i in range(2**bits)]
    return [i for i in reversed_ if i < total]
