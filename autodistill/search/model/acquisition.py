"""Expected hypervolume improvement of candidates, in closed form.

The part of objective space that the front does not dominate is cut into disjoint boxes
(:func:`autodistill.search.objectives.pareto.nondominated_boxes`). In every box, a candidate at ``z`` adds the product
over the objectives of how far the box reaches beyond ``z``. For a known cost this factor is a number; for a predicted
objective it is an expectation with a closed form. One formula thus covers one or several uncertain objectives (assumed
independent) and any number of known ones.

A predicted loss is Gaussian, or a shifted log-normal: ``exp(N(mean, deviation^2)) - shift``, whose expected improvement
is the price of a put option (Black & Scholes 1973, without interest). An objective may be known for some candidates and
predicted for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Floats = npt.NDArray[np.float64]

Shifts = Mapping[int, float]
"""Shift by index of the objective, for objectives whose predicted losses are log-normal."""
NONE_SHIFTED: Shifts = MappingProxyType({})


def expected_gain(
    mean: Floats, deviation: Floats, lower: Floats, upper: Floats, *, shifts: Shifts = NONE_SHIFTED
) -> Floats:
    """Return the expected hypervolume improvement of each candidate.

    Args:
        mean: ``(candidates, objectives)`` losses; the value itself if known. For a predicted loss of an objective with
            a shift, the mean of ``log(loss + shift)``.
        deviation: standard deviations of the same shape; 0 if the value is known.
        lower: ``(boxes, objectives)`` lower corners of the non-dominated region; may be ``-inf``.
        upper: upper corners of the same shape.
        shifts: shift of each objective whose predicted losses are shifted log-normal; the others are Gaussian.

    Returns:
        ``(candidates,)``, not negative.
    """
    total: Floats = np.maximum(_overlaps(mean, deviation, lower, upper, shifts), 0.0).sum(axis=1)
    return total


def gain_along(
    mean: Floats,
    deviation: Floats,
    lower: Floats,
    upper: Floats,
    *,
    objective: int,
    points: Floats,
    shifts: Shifts = NONE_SHIFTED,
) -> Floats:
    """Return the expected gain if one objective takes given values and the others stay as predicted.

    Args:
        mean: see :func:`expected_gain`.
        deviation: see :func:`expected_gain`.
        lower: see :func:`expected_gain`.
        upper: see :func:`expected_gain`.
        objective: index of the objective.
        points: ``(candidates, points)`` losses of that objective.
        shifts: see :func:`expected_gain`.

    Returns:
        ``(candidates, points)``, not negative.
    """
    weights = _overlaps(mean, deviation, lower, upper, shifts, skip=objective)
    low, high = lower[None, None, :, objective], upper[None, None, :, objective]
    length = np.maximum(high - np.maximum(low, points[:, :, None]), 0.0)
    gain: Floats = np.einsum("npb,nb->np", length, weights)
    return gain


def _overlaps(
    mean: Floats, deviation: Floats, lower: Floats, upper: Floats, shifts: Shifts, skip: int | None = None
) -> Floats:
    """Return the expected volume of every box beyond every candidate ``(candidates, boxes)``, without one objective."""
    gain = np.ones((len(mean), len(lower)))
    for j in range(mean.shape[1]):
        if j == skip:
            continue
        predicted = deviation[:, j] > 0  # false also for a NaN loss, which makes the gain NaN
        m, s = mean[:, j, None], deviation[:, j, None]
        if not predicted.any():
            gain *= _known(m, lower[:, j], upper[:, j])
        elif predicted.all():
            gain *= _predicted(m, s, lower[:, j], upper[:, j], shifts.get(j))
        else:
            gain[~predicted] *= _known(m[~predicted], lower[:, j], upper[:, j])
            gain[predicted] *= _predicted(m[predicted], s[predicted], lower[:, j], upper[:, j], shifts.get(j))
    return gain


def _known(loss: Floats, low: Floats, high: Floats) -> Floats:
    """Return the length of every box beyond each known loss ``(candidates, 1)``."""
    length: Floats = np.maximum(high - np.maximum(low, loss), 0.0)
    return length


def _predicted(mean: Floats, deviation: Floats, low: Floats, high: Floats, shift: float | None) -> Floats:
    """Return the expected length of every box beyond each predicted loss."""
    bounds, at = np.unique([low, high], return_inverse=True)  # boxes share most of their bounds
    value = _expected(bounds[None, :], mean, deviation, shift)
    below, above = at.reshape(2, -1)
    length: Floats = value[:, above] - value[:, below]
    return length


def _expected(bound: Floats, mean: Floats, deviation: Floats, shift: float | None) -> Floats:
    """Return the expected length from a predicted loss up to ``bound``, where it is positive."""
    return _below(bound, mean, deviation) if shift is None else _put(bound + shift, mean, deviation)


def _below(bound: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Return the expectation of ``max(bound - Y, 0)`` for ``Y ~ N(mean, deviation^2)``."""
    safe = np.maximum(deviation, 1e-12)
    z = np.clip((np.where(np.isneginf(bound), -1e100, bound) - mean) / safe, -40.0, 1e12)
    density = np.exp(-0.5 * np.minimum(z * z, 1400.0)) / np.sqrt(2.0 * np.pi)
    length: Floats = np.where(np.isneginf(bound), 0.0, safe * (z * ndtr(z) + density))
    return length


def _put(bound: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Return the expectation of ``max(bound - Y, 0)`` for ``log Y ~ N(mean, deviation^2)``."""
    safe, positive = np.maximum(deviation, 1e-9), np.maximum(bound, 1e-300)
    z = np.clip((np.log(positive) - mean) / safe, -40.0, 1e9)
    length = positive * ndtr(z) - np.exp(mean + 0.5 * safe**2) * ndtr(z - safe)
    value: Floats = np.where(bound > 0, np.maximum(length, 0.0), 0.0)
    return value
