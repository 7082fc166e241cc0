"""Pareto dominance, epsilon-net order, hypervolume and box decomposition of sets of loss vectors.

Every function takes losses of shape ``(points, objectives)``, smaller being better; maximised metrics are negated
(:meth:`autodistill.core.records.Objective.loss`). A row with a non-finite value was not measured: it dominates nothing,
ranks behind every measured row and adds no volume. Equal rows do not dominate each other.

Sorting and volumes are computed by moocore (exact, compiled). The epsilon-net order is that of Salinas et al. 2021, "A
multi-objective perspective on jointly tuning hardware and hyperparameters", on normalised objectives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def nondominated_mask(losses: npt.ArrayLike) -> Bools:
    """Return true for the rows that no other row dominates.

    Returns:
        ``(points,)``; all copies of an equal non-dominated row are true.
    """
    rows = _as_rows(losses)
    mask = _finite(rows)
    if mask.any():
        mask[mask] = _moocore().is_nondominated(rows[mask], keep_weakly=True)
    return mask


def nondominated_ranks(losses: npt.ArrayLike) -> Ints:
    """Return the front number of every row: 0 on the Pareto front, 1 on the front of the rest, and so on.

    Returns:
        ``(points,)``; non-finite rows get one number more than the worst finite row.
    """
    rows = _as_rows(losses)
    finite = _finite(rows)
    ranks = np.zeros(len(rows), dtype=np.int64)
    if finite.any():
        ranks[finite] = _moocore().pareto_rank(rows[finite])
        ranks[~finite] = ranks[finite].max() + 1
    return ranks


def epsilon_net_order(losses: npt.ArrayLike) -> Ints:
    """Return indices in the order of a greedy epsilon-net: each next row is the farthest from those already taken.

    The first is the best row in the first objective, so that a prefix of any length covers the whole front. Distances
    are Euclidean, with each objective scaled to its range in ``losses``. Ties go to the lower index; non-finite rows
    come last.
    """
    rows = _as_rows(losses)
    finite = np.flatnonzero(_finite(rows))
    rest = np.flatnonzero(~_finite(rows))
    if len(finite) == 0:
        return rest
    points = rows[finite]
    span = points.max(axis=0) - points.min(axis=0)
    points = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
    order = [int(np.lexsort(points.T[::-1])[0])]
    distance = np.linalg.norm(points - points[order[0]], axis=1)
    distance[order[0]] = -1.0
    for _ in range(len(points) - 1):
        best = int(np.argmax(distance))
        order.append(best)
        distance = np.minimum(distance, np.linalg.norm(points - points[best], axis=1))
        distance[order] = -1.0
    return np.concatenate([finite[order], rest])


def hypervolume(losses: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Return the volume that the rows dominate, bounded by ``reference``.

    Args:
        losses: ``(points, objectives)``; rows that are not better than the reference in every objective add nothing.
        reference: ``(objectives,)`` worst corner.
    """
    corner = np.asarray(reference, dtype=np.float64)
    rows = _inside(losses, corner)
    if len(rows) == 0:
        return 0.0
    if rows.shape[1] == 1:
        return float(corner[0] - rows.min())
    return float(_moocore().hypervolume(rows, ref=corner))


def nondominated_boxes(losses: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return disjoint boxes that fill the part of ``(-inf, reference]`` that no row dominates.

    A new point ``z`` adds the volume of every box above it, cut at ``z``. The gain is thus a sum of products over the
    objectives, so that expected gains have a closed form (:mod:`autodistill.search.model.acquisition`).

    Returns:
        Lower and upper corners, each ``(boxes, objectives)``; lower corners may be ``-inf``.
    """
    corner = np.asarray(reference, dtype=np.float64)
    rows = _inside(losses, corner)
    if len(rows):
        rows = np.unique(rows[nondominated_mask(rows)], axis=0)
    boxes = _boxes(rows, tuple(corner.tolist()))
    lower = np.array([box[0] for box in boxes]).reshape(len(boxes), len(corner))
    upper = np.array([box[1] for box in boxes]).reshape(len(boxes), len(corner))
    return lower, upper


Box = tuple[tuple[float, ...], tuple[float, ...]]


def _boxes(rows: Floats, corner: tuple[float, ...]) -> list[Box]:
    """Sweep the last objective upwards; between two of its values, the other objectives are a smaller problem.

    A box of the smaller problem that is unchanged over several slabs is emitted once, so that there are ``n + 1`` boxes
    for two objectives and about ``2 n + 1`` for three.
    """
    if rows.shape[1] == 1 or len(corner) == 1:
        best = min((float(row[0]) for row in rows), default=corner[0])
        return [((-np.inf,), (min(best, corner[0]),))]
    if rows.shape[1] == 2:
        stairs = _front(rows)[::-1]  # ascending in the last objective, thus descending in the first
        widths = [corner[0], *stairs[:, 0].tolist()]
        heights = [-np.inf, *stairs[:, 1].tolist(), corner[1]]
        return [((-np.inf, heights[i]), (width, heights[i + 1])) for i, width in enumerate(widths)]
    done: list[Box] = []
    opened: dict[Box, float] = dict.fromkeys(_boxes(rows[:0, :-1], corner[:-1]), -np.inf)
    for level in np.unique(rows[:, -1]):
        seen = rows[rows[:, -1] <= level, :-1]
        now = set(_boxes(_front(seen), corner[:-1]))
        for box in [box for box in opened if box not in now]:
            done.append(_extrude(box, opened.pop(box), float(level)))
        for box in sorted(now - opened.keys()):
            opened[box] = float(level)
    done += [_extrude(box, start, corner[-1]) for box, start in opened.items()]
    return done


def _extrude(box: Box, start: float, stop: float) -> Box:
    return (*box[0], start), (*box[1], stop)


def _front(rows: Floats) -> Floats:
    if rows.shape[1] == 1:
        lowest: Floats = rows.min(axis=0, keepdims=True)
        return lowest
    if len(rows) < 2:
        return rows
    if rows.shape[1] == 2:  # the common case, faster than a call into compiled code
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        best = np.minimum.accumulate(rows[:, 1])
        kept: Floats = rows[np.concatenate([[True], rows[1:, 1] < best[:-1]])]
        return kept
    return np.unique(rows[nondominated_mask(rows)], axis=0)


def _inside(losses: npt.ArrayLike, corner: Floats) -> Floats:
    rows = _as_rows(losses)
    if rows.shape[1] != len(corner):
        raise ValueError(f"losses have {rows.shape[1]} objectives, the reference point has {len(corner)}")
    return rows[_finite(rows) & (rows < corner).all(axis=1)]


def _as_rows(losses: npt.ArrayLike) -> Floats:
    rows = np.asarray(losses, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"losses must have shape (points, objectives), got {rows.shape}")
    return rows


def _finite(rows: Floats) -> Bools:
    return np.asarray(np.isfinite(rows).all(axis=1), dtype=np.bool_)


def _moocore() -> Any:
    import moocore  # a compiled package, loaded on first use

    return moocore
