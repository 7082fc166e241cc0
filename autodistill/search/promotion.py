"""Rungs: which trial goes on, and whether the next epoch belongs to a new candidate or to a paused trial.

Pure functions; nothing here knows Optuna. Two rules:

* :func:`index` is the better one and needs a model. It is the Gittins index of "train this candidate rung by rung, stop
  when it disappoints": the highest price per unit of work at which training it still pays in expectation, when every rung
  reveals a part of what it will add to the front and one may stop after each. A trial that shows good news has an index above the
  one it started with, so what deserves to be finished is finished; a slow starter keeps a high index as long as the
  model, which has seen the curves of similar students, expects it to catch up. (Weitzman 1979, "Optimal search for the
  best alternative"; Gittins 1979.)
* :func:`decide` needs only the other trials at the same rung: asynchronous successive halving by front number and
  epsilon-net, except that a trial that may still join the front at its size is judged among those of similar cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from autodistill.search import pareto

Floats = npt.NDArray[np.float64]

GRID = np.linspace(-4.0, 4.0, 41)
"""Posterior means of the final loss that a trial may show, in its current standard deviations from the current mean."""


@dataclass(frozen=True)
class Verdict:
    """Answer to a report.

    Attributes:
        go_on: train to the next rung now.
        why: one sentence for ``show N``.
    """

    go_on: bool
    why: str


@dataclass(frozen=True)
class Action:
    """What to do next.

    Attributes:
        trial: number of the paused trial to continue; ``None``: start a new candidate.
        index: expected front gain per unit of work.
        why: one sentence.
    """

    trial: int | None
    index: float
    why: str


def index(gain: Floats, resolved: Floats, work: Floats) -> Floats:
    """Gittins index of each trial: front gain per unit of work, not negative.

    Args:
        gain: ``(trials, len(GRID))`` front gain if the final loss is the mean plus ``GRID`` deviations.
        resolved: ``(trials, rungs)`` share of the variance of the final loss that is resolved at each remaining rung,
            not decreasing; the last is 1.
        work: ``(trials, rungs)`` work from the previous rung to each remaining one.
    """
    steps = np.diff(np.concatenate([np.zeros((len(resolved), 1)), resolved], axis=1), axis=1)
    moves = [_transition(np.sqrt(np.maximum(steps[:, k], 0.0))) for k in range(resolved.shape[1])]
    middle = len(GRID) // 2
    low = np.zeros(len(gain))
    high = gain.max(axis=1) / work[:, -1] + 1e-300
    for _ in range(30):
        price = 0.5 * (low + high)
        value = gain
        for k in reversed(range(len(moves))):
            value = np.einsum("ngh,nh->ng", moves[k], value) - (price * work[:, k])[:, None]
            if k:
                value = np.maximum(value, 0.0)
        pays = value[:, middle] > 0
        low, high = np.where(pays, price, low), np.where(pays, high, price)
    return low


def _transition(step: Floats) -> Floats:
    """``(trials, from, to)``: weights that give the exact mean of a piecewise linear function after a normal step."""
    spacing = GRID[1] - GRID[0]
    knots = np.concatenate([[GRID[0] - spacing], GRID, [GRID[-1] + spacing]])
    deviation = np.maximum(step, 1e-6)[:, None, None]
    z = (knots[None, None, :] - GRID[None, :, None]) / deviation
    below = deviation * (z * ndtr(z) + np.exp(-0.5 * np.minimum(z * z, 1400.0)) / np.sqrt(2 * np.pi))
    weights = (below[:, :, 2:] - 2 * below[:, :, 1:-1] + below[:, :, :-2]) / spacing
    weights = np.maximum(weights, 0.0)
    # what falls outside the grid is counted at its ends
    weights[:, :, 0] += np.maximum(1.0 - weights.sum(axis=2), 0.0) * (GRID[None, :] < 0)
    weights[:, :, -1] += np.maximum(1.0 - weights.sum(axis=2), 0.0)
    out: Floats = weights
    return out
