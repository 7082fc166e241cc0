"""Classes of a teacher in another order than those of the images: all of them, or a few that are exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]

_CHANCE = 1e-3
"""Largest probability that an exchange of classes is chance."""


def better_order(decided: Ints, labels: Ints, classes: int, least: float) -> list[int]:
    """Return each class's output position in the best order of outputs; empty if its accuracy is at most ``least``.

    With few images of many classes, some order always fits by chance. The order is therefore found on half of the
    images of each class, and its accuracy is measured on the other half.
    """
    found, kept = _halves(labels)
    _, order = best_order(decided[found], labels[found], classes)
    if not len(kept) or (decided[kept] == np.asarray(order)[labels[kept]]).mean() <= least:
        return []
    return best_order(decided, labels, classes)[1]


def exchanged(decided: Ints, labels: Ints, classes: int) -> list[int]:
    """Return each class's output position if some classes are exchanged; empty if none are.

    This finds exchanges also where the teacher is right on most images, because the other classes are in order. Classes
    are exchanged in a circle: of each one's images, more than half are decided as the next one, and fewer than half as
    many as itself. Orders found on both halves of the images have to agree, so that each image is judged by an order
    that it had no part in; and the images decided as the next class must outnumber those decided as their own by
    more than chance (sign test).
    """
    first, second = _halves(labels)
    if not len(second):
        return []
    orders = [best_order(decided[half], labels[half], classes)[1] for half in (first, second)]
    order = list(range(classes))
    for circle in _circles(orders[0]):
        if any(orders[0][c] != orders[1][c] for c in circle):
            continue
        own = np.asarray([((labels == c) & (decided == c)).sum() for c in circle])
        other = np.asarray([((labels == c) & (decided == orders[0][c])).sum() for c in circle])
        images = np.asarray([(labels == c).sum() for c in circle])
        if (other <= images / 2).any() or (own >= other / 2).any():
            continue
        if _sign_test(int(other.sum()), int(own.sum())) <= _CHANCE:
            for c in circle:
                order[c] = orders[0][c]
    return [] if order == list(range(classes)) else order


def best_order(decided: Ints, labels: Ints, classes: int) -> tuple[float, list[int]]:
    """Return the highest accuracy of any one-to-one assignment of outputs to classes, and the output of each class."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, decided), 1)
    rows, columns = linear_sum_assignment(-counts)
    return float(counts[rows, columns].sum() / len(labels)), [int(column) for column in columns]


def _halves(labels: Ints) -> tuple[Ints, Ints]:
    """Return the positions of every other image of each class, and of the rest."""
    by_class = np.argsort(labels, kind="stable")
    return by_class[::2], by_class[1::2]


def _circles(order: Sequence[int]) -> list[list[int]]:
    """Return the circles of a permutation with more than one member."""
    seen: set[int] = set()
    out = []
    for start in range(len(order)):
        circle = []
        at = start
        while at not in seen:
            seen.add(at)
            circle.append(at)
            at = order[at]
        if len(circle) > 1:
            out.append(circle)
    return out


def _sign_test(more: int, fewer: int) -> float:
    """Return the probability of at least ``more`` of ``more + fewer`` by chance, if both are equally likely."""
    from scipy.stats import binom

    return float(binom.sf(more - 1, more + fewer, 0.5))
