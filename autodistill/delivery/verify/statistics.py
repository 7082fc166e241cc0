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

The calibration error is that of Naeini et al. (2015) with bins of equal mass (Nixon et al. 2019). With bins of equal
width, almost every prediction of a good student is in the last bin. The error is never negative, so its expectation is
larger for small test splits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autodistill.search.results.verified import Difference, Figure

LEVEL = 0.95
BINS = 15

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def over_seeds(values: Sequence[float]) -> Figure:
    """Return mean and standard deviation (n - 1), without an interval."""
    array = np.asarray(values, dtype=np.float64)
    return Figure(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None)


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


def mean_label_recalls(counts: Sequence[Sequence[Sequence[int]]]) -> tuple[float | None, ...]:
    """Return the recall of each label, mean over seeds; ``None`` for a label that no test image has.

    Args:
        counts: of each seed, images of each label ``(labels, 4)``: present and decided, only decided, only present,
            neither.
    """
    known = np.asarray(counts, dtype=np.float64)
    images = known[0, :, 0] + known[0, :, 2]
    right = known[:, :, 0].mean(axis=0)
    return tuple(float(r / n) if n else None for r, n in zip(right, images, strict=True))


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
