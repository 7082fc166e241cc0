"""What a candidate may add to the front, in closed form.

The part of objective space that the front does not dominate is cut into disjoint boxes
(:func:`autodistill.search.pareto.nondominated_boxes`). A candidate at ``z`` adds, in every box, the product over the
objectives of how far the box reaches beyond ``z``. Known costs make their factor a number; an objective that is only
predicted, as a Gaussian, makes it an expectation with a closed form. So one formula serves one or several uncertain
objectives (taken as independent) and any number of known ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Floats = npt.NDArray[np.float64]


def expected_gain(mean: Floats, deviation: Floats, lower: Floats, upper: Floats) -> Floats:
    """Expected hypervolume improvement of each candidate.

    Args:
        mean: ``(candidates, objectives)`` losses; known ones hold the value itself.
        deviation: the same shape; 0 where the value is known.
        lower: ``(boxes, objectives)`` lower corners of the non-dominated region; may be ``-inf``.
        upper: their upper corners.

    Returns:
        ``(candidates,)``, not negative.
    """
    gain = np.ones((len(mean), len(lower)))
    for j in range(mean.shape[1]):
        m, s = mean[:, j, None], deviation[:, j, None]
        if not deviation[:, j].any():
            gain *= np.maximum(upper[None, :, j] - np.maximum(lower[None, :, j], m), 0.0)
        else:
            gain *= _below(upper[None, :, j], m, s) - _below(lower[None, :, j], m, s)
    total: Floats = np.maximum(gain, 0.0).sum(axis=1)
    return total


def _below(bound: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Expected length of ``bound - Y`` where it is positive, for ``Y ~ N(mean, deviation^2)``."""
    safe = np.maximum(deviation, 1e-12)
    z = np.clip((np.where(np.isneginf(bound), -1e300, bound) - mean) / safe, -40.0, 1e12)
    density = np.exp(-0.5 * np.minimum(z * z, 1400.0)) / np.sqrt(2.0 * np.pi)
    length: Floats = np.where(np.isneginf(bound), 0.0, safe * (z * ndtr(z) + density))
    return length
