"""Measures for several labels per image: ``fn(logits, labels) -> float`` with labels ``(n, labels)`` of 0 and 1.

A label counts as decided if its probability is above one half. ``average_precision`` and ``auroc`` need no threshold.
Labels that no image or every image has are left out of means over labels. Computed by scikit-learn where it has them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autodistill.core.registry import Registry
from autodistill.training.loop.decisions import BINS, Floats, Labels, Measure

multilabel_measures: Registry[Measure] = Registry("multi-label measure", "autodistill.multilabel_measures")


@multilabel_measures.register("average_precision")
def mean_average_precision(logits: Floats, labels: Labels) -> float:
    """Return the mean over the labels of their average precision (mAP): the area under precision over recall."""
    from sklearn.metrics import average_precision_score

    known = _varying(labels)
    return float(average_precision_score(labels[:, known], logits[:, known], average="macro")) if known.any() else 1.0


@multilabel_measures.register("auroc")
def auroc(logits: Floats, labels: Labels) -> float:
    """Return the area under the ROC curve, mean over the labels; 0.5 is chance."""
    from sklearn.metrics import roc_auc_score

    known = _varying(labels)
    return float(roc_auc_score(labels[:, known], logits[:, known], average="macro")) if known.any() else 0.5


@multilabel_measures.register("macro_f1")
def macro_f1(logits: Floats, labels: Labels) -> float:
    """Return the unweighted mean of the F1 scores of the labels that images have."""
    return float(label_f1(logits, labels)[labels.any(axis=0)].mean()) if labels.any() else 0.0


@multilabel_measures.register("micro_f1")
def micro_f1(logits: Floats, labels: Labels) -> float:
    """Return the F1 score of all pairs of image and label together, so that frequent labels count more."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, logits > 0, average="micro", zero_division=0.0))


@multilabel_measures.register("worst_f1")
def worst_f1(logits: Floats, labels: Labels) -> float:
    """Return the F1 score of the label that is recognised worst, of those that images have."""
    return float(label_f1(logits, labels)[labels.any(axis=0)].min()) if labels.any() else 0.0


@multilabel_measures.register("macro_recall")
def macro_recall(logits: Floats, labels: Labels) -> float:
    """Return the mean recall of the labels that images have."""
    return float(label_recalls(logits, labels)[labels.any(axis=0)].mean()) if labels.any() else 0.0


@multilabel_measures.register("worst_recall")
def worst_recall(logits: Floats, labels: Labels) -> float:
    """Return the recall of the label that is recognised worst, of those that images have."""
    return float(label_recalls(logits, labels)[labels.any(axis=0)].min()) if labels.any() else 0.0


@multilabel_measures.register("log_loss")
def log_loss(logits: Floats, labels: Labels) -> float:
    """Return the mean binary cross-entropy in nats, summed over labels; the same number as ``loss``."""
    return float((np.logaddexp(0.0, logits) - labels * logits).sum(axis=1).mean())


@multilabel_measures.register("ece")
def calibration_error(logits: Floats, labels: Labels, *, bins: int = BINS) -> float:
    """Return the expected calibration error of presence, over all pairs of image and label.

    The mean gap of the probability and the share of present labels, over bins of equal mass (Nixon et al. 2019).
    """
    probabilities = sigmoid(np.asarray(logits, dtype=np.float64)).ravel()
    groups = np.searchsorted(np.sort(probabilities), probabilities, side="left") * bins // len(probabilities)
    gaps = np.bincount(groups, weights=labels.ravel() - probabilities, minlength=bins)
    return float(np.abs(gaps).sum()) / len(probabilities)


def sigmoid(logits: Floats) -> Floats:
    """Return probabilities of presence, of the same shape."""
    out: Floats = np.exp(-np.logaddexp(0.0, -logits))
    return out


def label_counts(logits: Floats, labels: Labels, thresholds: Floats | float = 0.0) -> Labels:
    """Count the images of each label, ``(labels, 4)``.

    The columns are: present and decided, absent but decided, present but not decided, neither.

    Args:
        logits: ``(n, labels)``.
        labels: ``(n, labels)``.
        thresholds: logit above which a label counts as decided; one number, or ``(labels,)``.
    """
    decided, present = logits > thresholds, labels > 0
    parts = (decided & present, decided & ~present, ~decided & present, ~decided & ~present)
    return np.stack([part.sum(axis=0) for part in parts], axis=1).astype(np.int64)


def label_recalls(logits: Floats, labels: Labels) -> Floats:
    """Return the recall of each label, ``(labels,)``; 0 for one that no image has."""
    hits, _, missed, _ = label_counts(logits, labels).T
    found: Floats = hits / np.maximum(hits + missed, 1)
    return found


def label_f1(logits: Floats, labels: Labels, thresholds: Floats | float = 0.0) -> Floats:
    """Return the F1 score of each label, ``(labels,)``; 0 for one that is neither present nor decided anywhere."""
    hits, false, missed, _ = label_counts(logits, labels, thresholds).T
    found: Floats = 2 * hits / np.maximum(2 * hits + false + missed, 1)
    return found


def best_thresholds(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Return for each label the logit above which its F1 score on these images is highest, ``(labels,)``.

    A threshold lies halfway between two neighbouring logits. Of several with the same score the one nearest to 0 is
    taken, and 0 itself for a label that no image has. Source: Lipton et al. 2014, "Optimal thresholding of classifiers
    to maximize F1 measure", arXiv:1402.1892.

    Args:
        logits: ``(n, labels)``.
        labels: ``(n, labels)`` of 0 and 1.
    """
    scores, present = np.asarray(logits, dtype=np.float64), np.asarray(labels) > 0
    return np.array([_best_threshold(scores[:, one], present[:, one]) for one in range(scores.shape[1])])


def _best_threshold(scores: Floats, present: npt.NDArray[np.bool_]) -> float:
    total = int(present.sum())
    if not total:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(present[order])
    decided = np.arange(1, len(ranked) + 1)
    ends = np.append(ranked[1:] < ranked[:-1], True)  # equal logits are decided together
    f1 = 2 * hits / (decided + total)
    below = np.append(ranked[1:], ranked[-1] - 2.0)
    middles = (ranked + below) / 2
    places = np.flatnonzero(ends & (f1 >= f1[ends].max() - 1e-12))
    # any number between two neighbouring logits decides alike; 0 is taken where it is one
    free = np.any((below[places] <= 0) & (ranked[places] > 0))
    return 0.0 if free else float(middles[places][np.abs(middles[places]).argmin()])


def _varying(labels: Labels) -> npt.NDArray[np.bool_]:
    """Return which labels some images have and others have not, ``(labels,)``."""
    shares = labels.mean(axis=0)
    varying: npt.NDArray[np.bool_] = (shares > 0) & (shares < 1)
    return varying
