"""How sure a verified figure is: intervals over seeds and test images, paired differences, calibration error.

Accuracy on a test split varies for two reasons: training again with another seed, and having drawn these test images
and not others. With ``n`` seeds and ``N`` images the interval is ``mean ± h``,

    h² = q(n - 1)² s² / n + q(N - 1)² t² / N

with ``s²`` the variance of the accuracies over seeds, ``t²`` that of the images' shares of correct answers over
images, and ``q`` Student's quantile of so many degrees of freedom (three seeds: 4.30; thousands of images: 1.96). Each
part has the quantile of its own, as in Banerjee (1960), whose interval holds the truth in at least 95 of 100 cases
whatever the two true variances are. One quantile for the sum, with the degrees of freedom of Welch-Satterthwaite, does
not: it takes the seeds for few or many by the very ``s²`` that two or three of them hardly tell (two seeds: 87 in 100).

Two right and two wrong images are added to ``t²`` (Agresti and Coull 1998), so that a student without an error is
not thought to be certain. What differs between seeds on single images is counted on both sides: the interval is
rather too wide than too narrow. The bootstrap over three seeds, in contrast, is far too narrow.

Calibration error is that of Naeini et al. (2015) with bins of equal mass (Nixon et al. 2019): with bins of equal width
almost every answer of a good student falls into the last one. It is not negative, so small test splits raise it.
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
    """Mean and standard deviation, without an interval."""
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


def accuracy_figure(correct: Bools) -> Figure:
    """Accuracy with its 95 % interval over seeds and test images.

    Args:
        correct: ``(seeds, images)``. With one seed, only the images are in the interval.
    """
    answers = np.asarray(correct, dtype=np.float64)
    plain = over_seeds(answers.mean(axis=1).tolist())
    images = np.concatenate([answers.mean(axis=0), [0.0, 0.0, 1.0, 1.0]])
    half = half_width(answers.mean(axis=1), images)
    return Figure(plain.mean, plain.std, max(0.0, plain.mean - half), min(1.0, plain.mean + half))


def difference(first: Mapping[int, Bools], second: Mapping[int, Bools]) -> Difference | None:
    """Accuracy of one row less that of another, on the same images, paired by seed.

    Args:
        first: seed to right answers ``(images,)``.
        second: the same of the other row.

    Returns:
        ``None`` where they have no seed in common.
    """
    seeds = sorted(set(first) & set(second))
    if not seeds:
        return None
    gaps = np.stack([first[seed].astype(np.float64) - second[seed].astype(np.float64) for seed in seeds])
    mean = float(gaps.mean())
    half = half_width(gaps.mean(axis=1), np.concatenate([gaps.mean(axis=0), [-1.0, 1.0]]))
    return Difference(mean, mean - half, mean + half, len(seeds))


def half_width(seeds: Floats, images: Floats) -> float:
    """Half the interval of a mean over both; ``seeds (n,)``, ``images (N + added,)``. One seed has no part in it."""
    parts = [one for one in (seeds, images) if len(one) > 1]
    squares = [student_quantile(len(one) - 1) ** 2 * float(one.var(ddof=1)) / len(one) for one in parts]
    return math.sqrt(sum(squares))


def student_quantile(degrees: float, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t: 4.303 for two degrees of freedom, 1.960 for infinitely many."""
    from scipy.stats import t

    return float(t.ppf(0.5 + level / 2, degrees))
