"""Checks of a teacher of several labels per image: the kind of its outputs, its ranking of images, the order of labels.

A teacher is judged by its area under the ROC curve (AUROC), because that needs no threshold and is one half by chance,
however rare a label is. The mean over labels is weighted by one over the standard error of each, so that labels with
few images, whose areas are known badly, count less.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill.core.errors import TeacherError
from autodistill.training.data.datasets import ImageData
from autodistill.training.teachers.answers import answers, sample
from autodistill.training.teachers.teacher import LOGITS, PROBABILITIES, SIGMOID, Teacher

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SIGMAS = 4.0
"""Standard errors by which the mean AUROC must exceed one half."""

ROUNDING = 1e-3
"""Tolerance of the sum of a softmax, whose terms may have 16 bits."""

_CLEARLY = 0.1
"""Gain of the mean AUROC from which another order of the labels is taken for the right one."""

CHANCE = 0.5
"""AUROC of guessing."""

_FEW = 32  # images; enough to tell a softmax and a sigmoid from logits


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


def refuse_outputs(teacher: Teacher, data: ImageData) -> None:
    """Refuse a softmax, and sigmoids without the option that says so.

    Raises:
        TeacherError: the outputs are of another kind than the option ``outputs`` says, or cannot serve several labels.
    """
    given = teacher.preprocessing.outputs
    if given == PROBABILITIES:
        raise TeacherError(
            f"teacher {teacher.name} has the option outputs={PROBABILITIES}, a softmax over classes that exclude each "
            f"other, which cannot serve task: multilabel. For probabilities of labels, set "
            f"--set teacher.options.outputs={SIGMOID}."
        )
    # all outputs as they are, not only those of the class_map, and not converted to logits
    plain = replace(teacher, preprocessing=replace(teacher.preprocessing, class_map=(), outputs=LOGITS))
    outputs = answers(plain, sample(data.val, _FEW)).numpy()
    kind = kind_of_outputs(outputs)
    if kind == "softmax" and given != LOGITS:
        raise TeacherError(
            f"teacher {teacher.name} gives a softmax: its outputs sum to 1 for every image, so it tells classes that "
            "exclude each other, which cannot serve task: multilabel. It needs a logit or a sigmoid for each label; "
            "train one with `autodistill teach --task multilabel`. If they are logits nevertheless, set "
            f"--set teacher.options.outputs={LOGITS}."
        )
    if kind == "sigmoid" and not given:
        raise TeacherError(
            f"teacher {teacher.name} gives probabilities of labels (sigmoids): its outputs lie between 0 and 1 and do "
            f"not sum to 1. Students learn from logits: set --set teacher.options.outputs={SIGMOID} to use their "
            f"log-odds, or remove the sigmoid from the network. If they are logits nevertheless, set outputs={LOGITS}."
        )
    if kind == "logits" and given == SIGMOID:
        raise TeacherError(
            f"teacher {teacher.name} gives outputs from {outputs.min():.3g} to {outputs.max():.3g}, although its "
            f"option outputs is {SIGMOID}. Remove the option if it gives logits."
        )
