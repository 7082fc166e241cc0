"""Statistics of verified figures: intervals over seeds and test images, paired differences, calibration error.

Accuracy on a test split varies for two reasons: the seed of the training, and the sample of test images. With ``n``
seeds and ``N`` images the interval is ``mean ± h``,

    h² = q(n - 1)² s² / n + q(N - 1)² t² / N

where ``s²`` is the variance of the accuracies over seeds, ``t²`` the variance over images of each image's share of
correct predictions, and ``q`` Student's quantile for the degrees of freedom (three seeds: 4.30; thousands of images:
1.96). Each part has its own quantile, as in Banerjee (1960), whose interval covers the true value in at least 95 of
100 cases for any two true variances. A single quantile for the sum, with the degrees of freedom of
Welch-Satterthwaite, does not: its degrees of freedom depend on ``s²``, which two or three seeds estimate badly (two
seeds: 87 in 100).

Two correct and two wrong images are added to ``t²`` (Agresti and Coull 1998), so that a student without errors does
not get an interval of width zero. Differences between seeds on single images count in both parts, so the interval is
rather too wide than too narrow. A bootstrap over three seeds, in contrast, is far too narrow.

All other measures have the same interval, with the variance of the measure over resampled images (bootstrap,
``training/loop/resampling.py``) in the place of ``t² / N``.

The calibration error is that of Naeini et al. (2015) with bins of equal mass (Nixon et al. 2019). With bins of equal
width, almost every prediction of a good student is in the last bin. The error is never negative, so its expectation is
larger for small test splits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill.search.results.verified import Difference, Figure

LEVEL = 0.95
BINS = 15

LOSSES = ("loss", "log_loss")
WORST = ("worst_recall", "worst_f1")
OF_CLASSES = (*WORST, "balanced_accuracy", "macro_recall", "macro_f1", "auroc", "average_precision")
FRACTIONS = (*OF_CLASSES, "accuracy", "agreement", "top5_accuracy", "micro_f1", "ece")
"""Measures that are fractions; those of a mean over classes depend on the images of each class."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Table = Sequence[Sequence[int]]
Drawn = tuple[float, Floats]
"""A measure, and its values for resampled images."""


def over_seeds(values: Sequence[float]) -> Figure:
    """Return mean and standard deviation (n - 1), without an interval."""
    array = np.asarray(values, dtype=np.float64)
    return Figure(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None)


def measure_figure(name: str, values: Sequence[float], drawings: Sequence[Floats], images: Sequence[int]) -> Figure:
    """Return a measure with its 95 % interval over seeds and test images.

    The variation between images is the standard deviation of the measure over resampled images (the same for all
    seeds), of the mean over seeds. To its square is added what two correct and two wrong images of each class would
    add, as for accuracy, so that a measure without errors does not get an interval of width zero.

    Args:
        name: of the measure; those that are fractions end at 0 and 1.
        values: the measure of each seed.
        drawings: the measure for resampled images, ``(drawings,)``, of each seed; empty if unknown: then the figure has
            no interval.
        images: number of test images of each class.
    """
    plain = over_seeds(values)
    if not drawings or len(drawings) != len(values):
        return plain
    mean = np.mean(drawings, axis=0)
    variance = float(mean.var(ddof=1)) + _unseen(name, np.asarray(images, dtype=np.float64))
    squares = student_quantile(max(1, min(int(sum(images)), len(mean)) - 1)) ** 2 * variance
    if plain.std is not None:
        squares += student_quantile(len(values) - 1) ** 2 * plain.std**2 / len(values)
    low, high = plain.mean - math.sqrt(squares), plain.mean + math.sqrt(squares)
    if name in LOSSES:
        low = max(low, 0.0)
    elif name in FRACTIONS:
        low, high = max(low, 0.0), min(high, 1.0)
    return Figure(plain.mean, plain.std, low, high)


def measure_difference(
    name: str, first: Mapping[int, Drawn], second: Mapping[int, Drawn], images: Sequence[int]
) -> Difference | None:
    """Return a measure of one row minus that of another on the same drawings of the test images, paired by seed.

    Args:
        name: of the measure.
        first: the measure and its drawings, by seed, of the first row.
        second: the same for the second row.
        images: number of test images of each class.

    Returns:
        The difference with its interval; ``None`` if the rows have no seed in common.
    """
    seeds = sorted(set(first) & set(second))
    if not seeds:
        return None
    gaps = np.asarray([first[seed][0] - second[seed][0] for seed in seeds])
    drawn = np.mean([first[seed][1] - second[seed][1] for seed in seeds], axis=0)
    variance = float(drawn.var(ddof=1)) + _unseen(name, np.asarray(images, dtype=np.float64))
    squares = student_quantile(max(1, min(int(sum(images)), len(drawn)) - 1)) ** 2 * variance
    if len(seeds) > 1:
        squares += student_quantile(len(seeds) - 1) ** 2 * float(gaps.var(ddof=1)) / len(seeds)
    half = math.sqrt(squares)
    return Difference(float(gaps.mean()), float(gaps.mean()) - half, float(gaps.mean()) + half, len(seeds))


def _unseen(name: str, images: Floats) -> float:
    """Return the variance that two correct and two wrong images more would add to a fraction without errors."""
    known = images[images > 0]
    if name in OF_CLASSES:
        each = 2 / (known + 4) ** 2
        return float(each.max() if name in WORST else each.sum() / len(known) ** 2)
    return 2 / (float(known.sum()) + 4) ** 2 if name in FRACTIONS else 0.0


def mean_precisions(confusions: Sequence[Sequence[Sequence[int]]]) -> tuple[float | None, ...]:
    """Return the precision of each class, mean over the seeds that decide it; ``None`` for a class never decided.

    Args:
        confusions: as for :func:`mean_recalls`.
    """
    known = [np.asarray(one, dtype=np.float64) for one in confusions if len(one)]
    if not known:
        return ()
    named, right = np.stack([one.sum(axis=0) for one in known]), np.stack([np.diag(one) for one in known])
    decided = (named > 0).sum(axis=0)
    shares = np.divide(right, named, out=np.zeros_like(right), where=named > 0).sum(axis=0)
    return tuple(float(s / n) if n else None for s, n in zip(shares, decided, strict=True))


def summed_confusion(confusions: Sequence[Sequence[Sequence[int]]]) -> tuple[tuple[int, int, int], ...]:
    """Return the confusion matrix summed over seeds: true class, decided class and images, where there are any."""
    known = [np.asarray(one, dtype=np.int64) for one in confusions if len(one)]
    if not known:
        return ()
    total = np.sum(known, axis=0)
    rows, columns = np.nonzero(total)
    return tuple((int(r), int(c), int(total[r, c])) for r, c in zip(rows, columns, strict=True))


def mean_recalls(confusions: Sequence[Sequence[Sequence[int]]]) -> tuple[float | None, ...]:
    """Return the recall of each class, mean over seeds; ``None`` for a class without test images.

    Args:
        confusions: of each seed, counts ``(classes, classes)``: true class by decided class; empty where not known.
    """
    known = [np.asarray(one, dtype=np.float64) for one in confusions if len(one)]
    if not known:
        return ()
    images = known[0].sum(axis=1)
    right = np.mean([np.diag(one) for one in known], axis=0)
    return tuple(float(r / n) if n else None for r, n in zip(right, images, strict=True))


def by_class(confusions: Sequence[Table], label_counts: Sequence[Table]) -> dict[str, Any]:
    """Return the fields ``recalls``, ``precisions`` and ``confusion`` of a row.

    Args:
        confusions: as for :func:`mean_recalls`; empty tables where images have several labels.
        label_counts: for several labels per image, images of each label ``(labels, 4)`` of each seed: present and
            decided, only decided, only present, neither; else empty tables.
    """
    if not label_counts or not len(label_counts[0]):
        return {
            "recalls": mean_recalls(confusions),
            "precisions": mean_precisions(confusions),
            "confusion": summed_confusion(confusions),
        }
    counts = np.asarray(label_counts, dtype=np.float64)  # (seeds, labels, 4)
    hits, only_decided, only_present = counts[:, :, 0], counts[:, :, 1], counts[:, :, 2]
    return {
        "recalls": _mean_shares(hits, hits + only_present),
        "precisions": _mean_shares(hits, hits + only_decided),
        "confusion": (),
    }


def class_images(confusion: Table, label_counts: Table) -> list[int]:
    """Return the number of test images of each class, or of each label; arguments are those of one seed."""
    return [sum(row) for row in confusion] or [row[0] + row[2] for row in label_counts]


def _mean_shares(right: Floats, every: Floats) -> tuple[float | None, ...]:
    """Return ``right / every`` of each class, mean over the seeds ``(seeds, classes)`` where it is defined."""
    shares = np.divide(right, every, out=np.zeros_like(right), where=every > 0).sum(axis=0)
    return tuple(float(s / n) if n else None for s, n in zip(shares, (every > 0).sum(axis=0), strict=True))


def accuracy_figure(correct: Bools) -> Figure:
    """Return accuracy with its 95 % interval over seeds and test images.

    Args:
        correct: correctness of each prediction, ``(seeds, images)``. With one seed, the interval is of images only.
    """
    answers = np.asarray(correct, dtype=np.float64)
    plain = over_seeds(answers.mean(axis=1).tolist())
    images = np.concatenate([answers.mean(axis=0), [0.0, 0.0, 1.0, 1.0]])
    half = half_width(answers.mean(axis=1), images)
    return Figure(plain.mean, plain.std, max(0.0, plain.mean - half), min(1.0, plain.mean + half))


def difference(first: Mapping[int, Bools], second: Mapping[int, Bools]) -> Difference | None:
    """Return the accuracy of one row minus that of another on the same images, paired by seed.

    Args:
        first: correctness of each prediction ``(images,)`` of the first row, by seed.
        second: the same for the second row.

    Returns:
        The difference with its interval; ``None`` if the rows have no seed in common.
    """
    seeds = sorted(set(first) & set(second))
    if not seeds:
        return None
    gaps = np.stack([first[seed].astype(np.float64) - second[seed].astype(np.float64) for seed in seeds])
    mean = float(gaps.mean())
    half = half_width(gaps.mean(axis=1), np.concatenate([gaps.mean(axis=0), [-1.0, 1.0]]))
    return Difference(mean, mean - half, mean + half, len(seeds))


def half_width(seeds: Floats, images: Floats) -> float:
    """Return half the width of the interval of a mean over ``seeds (n,)`` and ``images (N + added,)``.

    With a single seed, only the images contribute.
    """
    parts = [one for one in (seeds, images) if len(one) > 1]
    squares = [student_quantile(len(one) - 1) ** 2 * float(one.var(ddof=1)) / len(one) for one in parts]
    return math.sqrt(sum(squares))


def student_quantile(degrees: float, level: float = LEVEL) -> float:
    """Return the two-sided quantile of Student's t: 4.303 for two degrees of freedom, 1.960 for infinitely many."""
    from scipy.stats import t

    return float(t.ppf(0.5 + level / 2, degrees))
