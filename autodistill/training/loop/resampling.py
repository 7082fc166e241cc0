"""Measures of resampled images: how much a measure depends on which images happened to be in a split.

The images are drawn again, with replacement, as many as there are (bootstrap, Efron 1979), and every measure is
computed for each drawing. Measures that are means over images are computed for drawings of all images. Measures of the
classes are computed for drawings within each class, so that no class is missing in a drawing.

The drawings depend on the labels and the seed alone: the networks of several runs, and their teacher, are compared on
the same drawings. Most measures are computed for all drawings at once, with the number of times that each image was
drawn as its weight; a measure of a study's own is called once per drawing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from autodistill.core.errors import UsageError
from autodistill.training.loop import measures
from autodistill.training.loop.decisions import Floats, Labels, Measure
from autodistill.training.loop.measures import calibration_gap, softmax

DRAWINGS = 200
"""Drawings of each measure; the standard deviation of as many values is known to 5 %."""

_FEWEST = 25
_WORK = 500_000_000
"""Drawings x images x classes of the measures of rankings; large splits of many classes get fewer drawings."""

Counts = npt.NDArray[np.int64]


def resampled(
    logits: Floats,
    labels: Labels,
    teacher: Floats | None = None,
    own: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Floats]:
    """Return each measure of every drawing, by name.

    Args:
        logits: ``(n, classes)``.
        labels: ``(n,)``.
        teacher: teacher logits ``(n, classes)``, for ``agreement``.
        own: measures of the study's own, name to ``module:function``.
        seed: seed of the drawings.

    Returns:
        ``accuracy``, ``loss``, every registered measure, those of ``own`` and, with ``teacher``, ``agreement``: arrays
        ``(drawings,)``. A measure that is not finite for some drawing is left out.
    """
    classes = logits.shape[1]
    everywhere = draws(np.zeros_like(labels), DRAWINGS, seed)
    within = draws(labels, DRAWINGS, seed + 1)
    fewer = drawings_of(len(labels), classes)
    found = _means(logits, labels, teacher, everywhere)
    found["ece"] = _calibration(logits, labels, everywhere)
    found |= _of_decisions(logits.argmax(1), labels, within)
    found |= _of_rankings(softmax(logits), labels, within[:fewer])
    others = {name: measures.measures.get(name) for name in measures.measures.names() if name not in found}
    others |= {name: measures.load_measure(where) for name, where in (own or {}).items()}
    for name, measure in others.items():
        if (values := one_by_one(measure, logits, labels, within)) is not None:
            found[name] = values
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def drawings_of(images: int, classes: int) -> int:
    """Return the number of drawings of measures of rankings, which take long for large splits of many classes."""
    return max(_FEWEST, min(DRAWINGS, _WORK // (images * classes)))


def draws(groups: Labels, drawings: int, seed: int) -> Counts:
    """Return how often each image is drawn, ``(drawings, n)``: within each group as often as it has images."""
    rng = np.random.default_rng([seed, len(groups)])
    out = np.zeros((drawings, len(groups)), dtype=np.int64)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        out[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=drawings)
    return out


def _means(logits: Floats, labels: Labels, teacher: Floats | None, drawn: Counts) -> dict[str, Floats]:
    """Return the measures that are means of one number per image."""
    decided = logits.argmax(1)
    surprise = measures.surprises(logits, labels)
    each = {
        "accuracy": decided == labels,
        "loss": surprise,
        "log_loss": surprise,
        "top5_accuracy": measures.among_top(logits, labels, 5),
    }
    if teacher is not None:
        each["agreement"] = decided == teacher.argmax(1)
    return {name: drawn @ np.asarray(values, dtype=np.float64) / len(labels) for name, values in each.items()}


def _calibration(logits: Floats, labels: Labels, drawn: Counts) -> Floats:
    probabilities = softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return np.asarray([calibration_gap(confidence[rows], right[rows]) for rows in rows_of(drawn)])


def _of_decisions(decided: Labels, labels: Labels, drawn: Counts) -> dict[str, Floats]:
    """Return the measures of recalls and precisions."""
    present, images = np.unique(labels, return_counts=True)
    hits = np.stack([drawn[:, (labels == c) & (decided == c)].sum(axis=1) for c in present], axis=1)
    named = np.stack([drawn[:, decided == c].sum(axis=1) for c in present], axis=1)
    recalls = hits / images
    return {
        "balanced_accuracy": recalls.mean(axis=1),
        "worst_recall": recalls.min(axis=1),
        "macro_f1": (2 * hits / (images + named)).mean(axis=1),
    }


def _of_rankings(probabilities: Floats, labels: Labels, drawn: Counts) -> dict[str, Floats]:
    """Return area under the ROC curve and average precision, one class against the rest, mean over classes."""
    present = [c for c in np.unique(labels).tolist() if (labels != c).any()]
    if not present:
        return {"auroc": np.full(len(drawn), 0.5), "average_precision": np.ones(len(drawn))}
    areas, precisions = np.zeros(len(drawn)), np.zeros(len(drawn))
    for c in present:
        area, precision = ranking(probabilities[:, c], labels == c, drawn)
        areas, precisions = areas + area / len(present), precisions + precision / len(present)
    return {"auroc": areas, "average_precision": precisions}


def ranking(scores: Floats, positive: npt.NDArray[np.bool_], drawn: Counts) -> tuple[Floats, Floats]:
    """Return area under the ROC curve and average precision of one class; images of equal score share a threshold."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    weights = drawn[:, order].astype(np.float64)
    hits = np.add.reduceat(weights * positive[order], starts, axis=1)
    every = np.add.reduceat(weights, starts, axis=1)
    misses = every - hits
    hits_above, every_above = hits.cumsum(axis=1), every.cumsum(axis=1)
    positives, negatives = hits_above[:, -1], every_above[:, -1] - hits_above[:, -1]
    area = ((hits_above - hits / 2) * misses).sum(axis=1) / (positives * negatives)
    precision = (hits * hits_above / np.maximum(every_above, 1)).sum(axis=1) / positives
    return area, precision


def one_by_one(measure: Measure, logits: Floats, labels: Labels, drawn: Counts) -> Floats | None:
    """Call a measure for each drawing; ``None`` if it fails for one: it then has no interval."""
    try:
        return np.asarray([float(measure(logits[rows], labels[rows])) for rows in rows_of(drawn)])
    except (ArithmeticError, LookupError, TypeError, ValueError, UsageError):
        return None


def rows_of(drawn: Counts) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the rows of the images of each drawing, an image as often as it was drawn."""
    for counts in drawn:
        yield np.repeat(np.arange(len(counts)), counts)
