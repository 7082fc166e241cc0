"""The classifier of frozen features: logistic regression, its strength chosen on held-out training images.

One multinomial regression, or one binary regression for each label if images can have several.

Features are standardised first, and the standardisation is folded into the weights, so that the result is one linear
layer. The validation images are not used: their accuracy stays an honest measure of the teacher.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError, UsageError
from autodistill.training.data.sources.splits import hold_out

STRENGTHS = (2e-5, 1e-4, 5e-4, 2e-3, 1e-2, 5e-2, 0.2, 1.0)
"""Values of C, the inverse of the L2 penalty of standardised features, from strong to weak penalty."""

_HELD = 0.2  # share of the training images on which C is chosen
_STEPS = 200  # iterations of L-BFGS; C values that need more are far too weak a penalty
_UNSEEN = 10.0  # logits by which a class without images is below all others

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Head:
    """A linear classifier of features.

    Attributes:
        weight: ``(classes, width)``.
        bias: ``(classes,)``.
        strength: C of the logistic regression; the geometric mean over labels.
        held_out: accuracy on the held-out training images; NaN if there were too few to hold any out.
    """

    weight: Doubles
    bias: Doubles
    strength: float
    held_out: float

    def logits(self, features: Floats) -> Doubles:
        """Return logits ``(n, classes)`` of features ``(n, width)``."""
        return features.astype(np.float64) @ self.weight.T + self.bias


def fit_head(
    views: Sequence[Floats], labels: Ints, *, classes: int, seed: int, weights: Floats | Doubles | None = None
) -> Head:
    """Fit the classifier on all views of the training images.

    Args:
        views: features ``(n, width)`` of each view; the first is the plain image, on which C is chosen.
        labels: ``(n,)``, or 0 and 1 for each label, ``(n, classes)``.
        classes: number of classes.
        seed: seed of the images that are held out to choose C.
        weights: weights of the classes, or of the presence of labels, ``(classes,)``; all equal if omitted.
    """
    mean, std = _moments(views)
    scaled = [((one - mean) / std).astype(np.float32) for one in views]
    held = _held_out(labels, seed)
    if labels.ndim == 1:
        each = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)[labels]
        fits = [_fit(scaled, labels, each, held)]
        weight, bias = _of_all_classes(fits[0][0], classes)
    else:
        fits, weight, bias = [], np.zeros((classes, scaled[0].shape[1])), np.zeros(classes)
        for label in range(classes):
            present = (labels[:, label] > 0).astype(np.int64)
            each = np.ones(len(labels)) if weights is None else np.where(present, float(weights[label]), 1.0)
            if len(np.unique(present)) < 2:  # nothing to learn: the constant that is always right
                bias[label] = _UNSEEN if present.any() else -_UNSEEN
                continue
            fits.append(_fit(scaled, present, each, held))
            weight[label], bias[label] = fits[-1][0].coef_[0], fits[-1][0].intercept_[0]
    weight = weight / std
    strengths, held_out = ([one[place] for one in fits] for place in (1, 2))
    strength = float(np.exp(np.mean(np.log(strengths)))) if fits else STRENGTHS[0]
    return Head(weight, bias - weight @ mean.astype(np.float64), strength, float(np.mean(held_out or [np.nan])))


def _held_out(labels: Ints, seed: int) -> Mask | None:
    """Mark the images on which C is chosen; ``None`` if there are too few images of a class."""
    try:
        return hold_out(labels, _HELD, seed=seed, stream="head")
    except (DataError, UsageError):  # a class with one image
        return None


def _fit(scaled: Sequence[Floats], labels: Ints, each: Doubles, held: Mask | None) -> tuple[Any, float, float]:
    """Return the model of all images, its C, and its accuracy on the held-out images."""
    strength, held_out = _strength(scaled, labels, each, held)
    return _fitted(_model(strength), scaled, labels, each), strength, held_out


def _strength(scaled: Sequence[Floats], labels: Ints, each: Doubles, held: Mask | None) -> tuple[float, float]:
    """Return the C with the least cross-entropy on held-out images, and its accuracy there.

    The path goes from a strong to a weak penalty, each fit starting from the one before, and ends once two values in
    turn are worse than the best.
    """
    if held is None or len(np.unique(labels[~held])) < len(np.unique(labels)):
        return STRENGTHS[len(STRENGTHS) // 2], float("nan")
    model = _model(STRENGTHS[0])
    best, found, right = np.inf, STRENGTHS[0], 0.0
    worse = 0
    for strength in STRENGTHS:
        model.set_params(C=strength)
        _fitted(model, [one[~held] for one in scaled], labels[~held], each[~held])
        chances = model.predict_log_proba(scaled[0][held])
        places = np.searchsorted(model.classes_, labels[held])
        loss = float(-np.average(chances[np.arange(len(places)), places], weights=each[held]))
        if loss < best:
            best, found, worse = loss, strength, 0
            right = float((model.classes_[chances.argmax(1)] == labels[held]).mean())
        else:
            worse += 1
        if worse == 2:
            break
    return found, right


def _model(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=_STEPS, tol=1e-3, warm_start=True)


def _fitted(model: Any, scaled: Sequence[Floats], labels: Ints, each: Doubles) -> Any:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the best C is well inside of what converges
        shares = np.tile(each, len(scaled)) / len(scaled)  # views of an image count as one image
        return model.fit(np.concatenate(scaled), np.tile(labels, len(scaled)), sample_weight=shares)


def _of_all_classes(model: Any, classes: int) -> tuple[Doubles, Doubles]:
    """Return weight and bias of every class; classes without images are below all others."""
    coefficients, constants = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(model.classes_) == 2:  # one logit stands for both
        coefficients, constants = (np.concatenate([-value / 2, value / 2]) for value in (coefficients, constants))
    weight, bias = np.zeros((classes, coefficients.shape[1])), np.full(classes, constants.min() - _UNSEEN)
    weight[model.classes_], bias[model.classes_] = coefficients, constants
    return weight, bias


def _moments(views: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of the features over all views; constant features get 1."""
    mean = np.mean([one.mean(0, dtype=np.float64) for one in views], axis=0)
    variance = np.mean([((one - mean) ** 2).mean(0) for one in views], axis=0)
    std = np.sqrt(variance)
    std[std < 1e-6 * max(1.0, float(std.max(initial=0.0)))] = 1.0
    return mean.astype(np.float32), std.astype(np.float32)
