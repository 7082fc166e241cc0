"""Decisions of a classifier from its logits, and the types that all measures of them share.

Decided is the class of the largest logit; with several labels per image, every label whose logit is above 0, i.e. whose
probability is above one half. The shape of the labels tells the task: ``(n,)`` is one class per image, ``(n, classes)``
of 0 and 1 any number of labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Measure = Callable[[Floats, Labels], float]

BINS = 15
"""Bins of the calibration error, each with the same number of images."""

AnyFloats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


def is_right(logits: AnyFloats, labels: Labels) -> Bools:
    """Return for each image, ``(n,)``, whether its class is decided, or whether all its labels are."""
    if labels.ndim == 2:
        right: Bools = ((logits > 0) == (labels > 0)).all(axis=1)
        return right
    chosen: Bools = logits.argmax(axis=1) == labels
    return chosen


def accuracy(logits: AnyFloats, labels: Labels) -> float:
    """Return the share of images that are right: of their class, or of all their labels (subset accuracy)."""
    return float(is_right(logits, labels).mean())


def agreement(first: AnyFloats, second: AnyFloats, *, several: bool) -> float:
    """Return the share of equal decisions of two classifiers: of images, or of single labels.

    Args:
        first: logits ``(n, classes)``.
        second: logits of the other ``(n, classes)``.
        several: whether an image has any number of labels.
    """
    if several:
        return float(((first > 0) == (second > 0)).mean())
    return float((first.argmax(axis=1) == second.argmax(axis=1)).mean())
