"""Whether decisions are better than those of a teacher that knows nothing of the images.

Two comparisons, of which one suffices. *Accuracy* must exceed the share of the most frequent class. Where one class has
nearly all images, even a perfect teacher cannot do that; its *balanced accuracy* (mean recall of the classes) must then
exceed that of decisions which are independent of the image: one over the number of classes, whatever they are. Both by
four standard errors. Because the normal approximation fails for a class of one or two images, balanced accuracy needs
at least one class whose hits are as unlikely by chance in the exact (hypergeometric) distribution.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]

SIGMAS = 4.0
"""Standard errors by which a figure must exceed that of guessing."""

_RARE = 3.2e-5
"""Probability of exceeding the mean of a normal distribution by ``SIGMAS``."""


def share_of_most_frequent(labels: Ints) -> float:
    """Return the accuracy of always guessing the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))


def balanced_accuracy(decided: Ints, labels: Ints) -> float:
    """Return the mean recall of the classes that have images."""
    hits, images, _ = _counts(decided, labels)
    return float((hits / images).mean())


def above_chance(decided: Ints, labels: Ints) -> bool:
    """Return whether accuracy or balanced accuracy is better than that of guessing.

    Args:
        decided: class decided for each image, ``(n,)``.
        labels: class of each image, ``(n,)``.
    """
    chance = share_of_most_frequent(labels)
    least = chance + SIGMAS * math.sqrt(chance * (1 - chance) / len(labels))
    return bool((decided == labels).mean() > least) or _balanced_above_chance(decided, labels)


def never_decided(decided: Ints, labels: Ints) -> list[int]:
    """Return the classes that have images and are decided for none."""
    present: list[int] = np.setdiff1d(np.unique(labels), np.unique(decided)).tolist()
    return present


def enough_images(labels: Ints) -> int:
    """Return how many images in the proportions of ``labels`` are enough for a perfect teacher to be above chance."""
    classes, images = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise ValueError("one class cannot be told from guessing it")

    def passes(total: int) -> bool:
        several = np.repeat(classes, np.maximum(np.round(images * total / len(labels)).astype(int), 1))
        return above_chance(several, several)

    low, high = 0, len(labels)
    while not passes(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _balanced_above_chance(decided: Ints, labels: Ints) -> bool:
    from scipy.stats import hypergeom

    hits, images, shares = _counts(decided, labels)
    if len(images) < 2:
        return False
    error = math.sqrt(float((shares * (1 - shares) / images).sum())) / len(images)
    if (hits / images).mean() <= 1 / len(images) + SIGMAS * error:
        return False
    by_chance = hypergeom.sf(hits - 1, len(labels), images, np.round(shares * len(labels)))
    return bool(by_chance.min() * len(images) <= _RARE)


def _counts(decided: Ints, labels: Ints) -> tuple[Ints, Ints, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return, by class with images: right decisions, images, and the share of all decisions for that class."""
    classes, places, images = np.unique(labels, return_inverse=True, return_counts=True)
    hits = np.bincount(places, weights=decided == labels, minlength=len(classes)).astype(np.int64)
    shares = (decided[:, None] == classes[None, :]).mean(axis=0)
    return hits, images.astype(np.int64), shares
