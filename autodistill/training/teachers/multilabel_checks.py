"""Checks of a teacher of several labels per image: the kind of its outputs, its ranking of images, the order of labels.

A teacher is judged by its area under the ROC curve (AUROC), because that needs no threshold and is one half by chance,
however rare a label is. The mean over labels is weighted by one over the standard error of each, so that labels with
few images, whose areas are known badly, count less.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SIGMAS = 4.0
"""Standard errors by which the mean AUROC must exceed one half."""

ROUNDING = 1e-3
"""Tolerance of the sum of a softmax, whose terms may have 16 bits."""

_CLEARLY = 0.1
"""Gain of the mean AUROC from which another order of the labels is taken for the right one."""

CHANCE = 0.5


def kind_of_outputs(outputs: npt.NDArray[np.floating[Any]]) -> str:
    """Return ``softmax``, ``sigmoid`` or ``logits``, judged by the range and the sums of outputs ``(n, labels)``."""
    if outputs.min() < 0 or outputs.max() > 1:
        return "logits"
    return "softmax" if np.abs(outputs.sum(axis=1) - 1).max() <= ROUNDING else "sigmoid"


def areas(outputs: npt.NDArray[np.floating[Any]], labels: Ints) -> Floats:
    """Return the AUROC of every output ``(rows)`` for every label ``(columns)``; NaN for labels that do not vary.

    It is the Mann-Whitney statistic: the share of pairs of an image with the label and one without it that the output
    ranks in this order, ties counted half.

    Args:
        outputs: ``(n, outputs)``.
        labels: ``(n, labels)`` of 0 and 1.
    """
    from scipy.stats import rankdata

    ranks = rankdata(outputs, axis=0)
    present = labels.sum(axis=0).astype(np.float64)
    absent = len(labels) - present
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = (ranks.T @ labels - present * (present + 1) / 2) / (present * absent)
    found[:, (present == 0) | (absent == 0)] = np.nan
    return found


def mean_area(outputs: npt.NDArray[np.floating[Any]], labels: Ints) -> float:
    """Return the weighted mean AUROC over the labels that vary; one half if none does."""
    weights, own = 1.0 / standard_errors(labels), np.diag(areas(outputs, labels))
    return float(np.nansum(weights * own) / weights.sum()) if weights.any() else CHANCE


def least_area(labels: Ints) -> float:
    """Return the weighted mean AUROC that a teacher must exceed on images with these labels.

    The labels of an image are not independent, so their errors are added as if all of them fell together.
    """
    weights = 1.0 / standard_errors(labels)
    return CHANCE + SIGMAS * float((weights > 0).sum() / weights.sum()) if weights.any() else 1.0


def standard_errors(labels: Ints) -> Floats:
    """Return the standard error ``(labels,)`` of each label's AUROC by chance; infinite for labels that do not vary.

    It is ``sqrt((n + 1) / (12 p (n - p)))`` with ``p`` images of ``n`` that have the label (Mann and Whitney 1947).
    """
    present = labels.sum(axis=0).astype(np.float64)
    with np.errstate(divide="ignore"):
        found: Floats = np.sqrt((len(labels) + 1) / (12 * present * (len(labels) - present)))
    return found


def images_needed(labels: Ints) -> int:
    """Return how many images with labels of these shares a perfect teacher needs to be told from chance."""
    short = (least_area(labels) - CHANCE) / (1.0 - CHANCE)
    return math.ceil(len(labels) * short**2) + 1


def better_order(outputs: npt.NDArray[np.floating[Any]], labels: Ints) -> tuple[list[int], float]:
    """Return each label's output in the best order of outputs, and its mean AUROC.

    The list is empty if no order is clearly better. The order is found on half of the images and judged on the other
    half, because some order always fits by chance.
    """
    from scipy.optimize import linear_sum_assignment

    def best(rows: slice) -> list[int]:
        found = np.nan_to_num(areas(outputs[rows], labels[rows]), nan=CHANCE)
        _, order = linear_sum_assignment(-found.T)
        return [int(one) for one in order]

    kept = slice(1, None, 2)
    tried = best(slice(0, None, 2))
    plain = mean_area(outputs[kept], labels[kept])
    reordered = mean_area(outputs[kept][:, tried], labels[kept])
    if reordered < plain + _CLEARLY or reordered <= least_area(labels[kept]):
        return [], plain
    order = best(slice(None))
    return order, mean_area(outputs[:, order], labels)
