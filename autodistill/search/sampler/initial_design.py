"""The first design: the trials before there is anything to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autodistill.core.records import Objective
from autodistill.search.model.model_input import CandidateBatch

Floats = npt.NDArray[np.float64]

CHOICE = 170
"""Candidates that each trial is chosen from: with all of them, all seeds would start alike."""


AFFORDED = 0.5
"""Share of the candidates, those of the least work, that the design is chosen from: the others would take most of its
work, and say no more about recipes; how good they are, capacity tells until the model asks for them."""


def length(rungs: Sequence[float]) -> int:
    """Trials of the design; fewer with rungs, as until it ends no trial goes on, and none is trained to the end."""
    return 8 if rungs else 11


def choose_design(
    pool: CandidateBatch,
    earlier: CandidateBatch,
    priced: Sequence[Objective],
    groups: Sequence[int],
    total: int,
    rng: np.random.Generator,
    work: Floats | None = None,
) -> tuple[int, str]:
    """The row of the next candidate of the design, and why.

    Args:
        pool: new candidates with their known costs.
        earlier: what was proposed before.
        priced: the objectives that are known costs, to spread over.
        groups: parameter of each feature column.
        total: trials of the design.
        rng: draws the candidates that are looked at.
        work: of training each candidate of the pool; equal by default.
    """
    index = len(earlier.values)
    place = f"first design, {index + 1} of {total}"
    if index == total - 1:
        row = cheapest(_losses(pool.costs, priced), _losses(earlier.costs, priced))
        if row is not None:
            return row, f"{place}: the cheapest student that is known"
    rows = rng.permutation(len(pool.values))
    if work is not None:
        rows = rows[work[rows] <= np.quantile(work, AFFORDED)]
    rows = rows[:CHOICE].tolist()
    some = pool.take(rows)
    row = most_different(some.params, groups, _losses(some.costs, priced), earlier.params, index, total - 1)
    return rows[row], f"{place}: spread over the known costs"


def _losses(costs: Sequence[Mapping[str, float]], priced: Sequence[Objective]) -> Floats:
    """Known costs ``(candidates, objectives)``, turned so that less is better; NaN where they are not known."""
    rows = [[o.loss(c.get(o.name, np.nan)) for o in priced] for c in costs]
    return np.array(rows, dtype=np.float64).reshape(len(costs), len(priced))


def most_different(
    features: Floats, groups: Sequence[int], costs: Floats, taken: Floats, index: int, total: int
) -> int:
    """Which candidate a first design takes next.

    Candidate ``index`` of ``total`` comes from one slice of the known costs, visited in an order that covers the whole
    range early. Inside the slice it is, of the quarter whose choices were taken least, the one farthest from what was
    taken, so that every choice of every parameter is seen: of a choice that it has never seen, a model expects nothing.

    Args:
        features: ``(candidates, columns)``.
        groups: parameter of each column.
        costs: ``(candidates, known costs)``, less is better; maybe without columns; the slices cut each one in turn.
        taken: features of earlier candidates, ``(taken, columns)``.
        index: how many were taken before.
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
    """The candidate with the lowest sum of ranks in the known costs; ``None`` where one as cheap was taken.

    Args:
        costs: ``(candidates, known costs)``, less is better.
        taken: ``(taken, known costs)``, NaN where they are not known.
    """
    if costs.size == 0:
        return None
    ranks = np.argsort(np.argsort(costs, axis=0, kind="stable"), axis=0, kind="stable")
    row = int(np.argmin(ranks.sum(axis=1)))
    return None if (taken <= costs[row]).all(axis=1).any() else row


def _used(features: Floats, groups: Sequence[int], taken: Floats) -> Floats:
    """How often the choices of each candidate were taken, squared and summed over its parameters; numbers aside."""
    of, used = np.asarray(groups), np.zeros(len(features))
    for group in set(groups):
        columns = of == group
        if columns.sum() > 1:
            gap = np.linalg.norm(features[:, None, columns] - taken[None, :, columns], axis=2)
            used += np.maximum(1.0 - gap, 0.0).sum(axis=1) ** 2  # different choices are at distance 1
    return used


def _permutation(total: int) -> list[int]:
    """0 … total - 1 in bit-reversed order: any prefix covers the range."""
    bits = max(1, (total - 1).bit_length())
    reversed_ = [int(format(i, f"0{bits}b")[::-1], 2) for i in range(2**bits)]
    return [i for i in reversed_ if i < total]
