"""Measures of a classifier: numbers computed from its logits and the labels of images that it was not trained on.

A measure is ``fn(logits, labels) -> float`` with ``logits`` a float64 array ``(n, classes)`` and ``labels`` an int64
array ``(n,)``. For several labels per image, ``labels`` is ``(n, classes)`` of 0 and 1, and the measures are those of
``multilabel_measures.py``. Built-in ones are computed by scikit-learn. A study adds its own as ``module:function``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill.core.errors import UsageError
from autodistill.core.records import MULTICLASS, MULTILABEL, TaskKind
from autodistill.core.registry import Registry
from autodistill.training.data.sources.factory import is_reference, resolve
from autodistill.training.loop.decisions import BINS, Floats, Labels, Measure
from autodistill.training.loop.multilabel_measures import multilabel_measures

measures: Registry[Measure] = Registry("measure", "autodistill.measures")


@measures.register("balanced_accuracy")
def balanced_accuracy(logits: Floats, labels: Labels) -> float:
    """Return the mean recall of the classes that have images."""
    return float(class_recalls(logits, labels)[1].mean())


@measures.register("worst_recall")
def worst_recall(logits: Floats, labels: Labels) -> float:
    """Return the recall of the class that is recognised worst, of those that have images."""
    return float(class_recalls(logits, labels)[1].min())


@measures.register("macro_f1")
def macro_f1(logits: Floats, labels: Labels) -> float:
    """Return the unweighted mean of the F1 scores of the classes that have images."""
    from sklearn.metrics import f1_score

    present = np.unique(labels)
    return float(f1_score(labels, logits.argmax(1), labels=present, average="macro", zero_division=0.0))


@measures.register("top5_accuracy")
def top5_accuracy(logits: Floats, labels: Labels) -> float:
    """Return the share of images whose label is among the five largest logits; 1 with five classes or fewer."""
    return float(among_top(logits, labels, 5).mean())


@measures.register("log_loss")
def log_loss(logits: Floats, labels: Labels) -> float:
    """Return the mean cross-entropy in nats; the same number as ``loss``, under the name that scikit-learn gives it."""
    return float(surprises(logits, labels).mean())


@measures.register("auroc")
def auroc(logits: Floats, labels: Labels) -> float:
    """Return the area under the ROC curve, one class against the rest, mean over classes; 0.5 is chance."""
    from sklearn.metrics import roc_auc_score

    return _over_classes(roc_auc_score, logits, labels, chance=0.5)


@measures.register("average_precision")
def average_precision(logits: Floats, labels: Labels) -> float:
    """Return the average precision, one class against the rest, mean over the classes that have images."""
    from sklearn.metrics import average_precision_score

    return _over_classes(average_precision_score, logits, labels, chance=1.0)


@measures.register("ece")
def calibration_error(logits: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = BINS) -> float:
    """Return the expected calibration error: mean gap of confidence and accuracy over bins of equal mass.

    Source: Guo et al. 2017, "On calibration of modern neural networks"; bins of equal mass as in Nixon et al. 2019.

    Args:
        logits: ``(n, classes)``.
        labels: ``(n,)``.
        bins: groups of equal size, by confidence.
    """
    probabilities = softmax(np.asarray(logits, dtype=np.float64))
    return calibration_gap(probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(labels), bins=bins)


def calibration_gap(confidence: Floats, right: npt.NDArray[np.bool_], *, bins: int = BINS) -> float:
    """Return the calibration error of decisions with a ``confidence (n,)`` that are ``right (n,)`` or wrong."""
    # equal confidences share a bin: otherwise the order of the images would count
    groups = np.searchsorted(np.sort(confidence), confidence, side="left") * bins // len(confidence)
    gaps = np.bincount(groups, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum()) / len(confidence)


def among_top(logits: Floats, labels: Labels, count: int) -> npt.NDArray[np.bool_]:
    """Return for each image whether its label is among the ``count`` largest logits, ``(n,)``."""
    if logits.shape[1] <= count:
        return np.ones(len(labels), dtype=bool)
    top = np.argpartition(-logits, count, axis=1)[:, :count]
    found: npt.NDArray[np.bool_] = (top == labels[:, None]).any(axis=1)
    return found


def surprises(logits: Floats, labels: Labels) -> Floats:
    """Return the cross-entropy of each image in nats, ``(n,)``."""
    top = logits.max(axis=1)
    total: Floats = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    return total - logits[np.arange(len(labels)), labels]


def class_recalls(logits: Floats, labels: Labels) -> tuple[Labels, Floats]:
    """Return the classes that have images, and the share of each that is recognised."""
    present, places = np.unique(labels, return_inverse=True)
    right = (logits.argmax(1) == labels).astype(np.float64)
    recalls: Floats = np.bincount(places, weights=right) / np.bincount(places)
    return present, recalls


def confusion(logits: Floats, labels: Labels) -> Labels:
    """Return counts ``(classes, classes)``: row ``i``, column ``j`` are images of class ``i`` decided as ``j``."""
    classes = logits.shape[1]
    pairs = np.bincount(labels * classes + logits.argmax(1), minlength=classes * classes)
    return pairs.reshape(classes, classes).astype(np.int64)


def softmax(logits: Floats) -> Floats:
    """Return probabilities ``(n, classes)``."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    out: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return out


def measures_of(kind: TaskKind) -> Registry[Measure]:
    """Return the measures of a task: one class per image, or several labels per image."""
    return multilabel_measures if kind == MULTILABEL else measures


def compute(logits: Floats, labels: Labels, own: Mapping[str, str] | None = None) -> dict[str, float]:
    """Compute every registered measure, and those of a study.

    Args:
        logits: ``(n, classes)``.
        labels: ``(n,)``, or ``(n, classes)`` of 0 and 1.
        own: name to ``module:function`` of measures of the study's own.

    Raises:
        UsageError: a measure of the study's own gave no finite number.
    """
    known = measures_of(MULTILABEL if labels.ndim == 2 else MULTICLASS)
    found = {name: float(known.get(name)(logits, labels)) for name in known.names()}
    for name, where in (own or {}).items():
        found[name] = _checked(name, where, load_measure(where)(logits, labels))
    return found


def load_measure(where: str) -> Measure:
    """Load ``module:function``.

    Raises:
        UsageError: it is not of that form, cannot be imported, or is not a function.
    """
    if not is_reference(where):
        raise UsageError(f"measure {where!r} is not of the form module:function, e.g. my_measures:f2.")
    return resolve(where)


def _checked(name: str, where: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"measure {name!r} ({where}) returned {value!r}; it must return one finite number.")
    return number


def _over_classes(score: Callable[[Any, Any], float], logits: Floats, labels: Labels, *, chance: float) -> float:
    """Return the mean of a score of one class against the rest, over the classes for which it is defined."""
    probabilities = softmax(logits)
    present = [c for c in np.unique(labels).tolist() if (labels != c).any()]
    scores = [float(score(labels == c, probabilities[:, c])) for c in present]
    return float(np.mean(scores)) if scores else chance
