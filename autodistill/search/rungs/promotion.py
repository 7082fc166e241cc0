"""Rungs: which trial goes on, and whether the next epoch belongs to a new candidate or to a paused trial.

Pure functions; nothing here knows Optuna. Two rules:

* :func:`index` is the better one and needs a model. It is the Gittins index of "train this candidate rung by rung,
  stop when it disappoints": the highest price per unit of work at which training it still pays in expectation, when
  every rung reveals a part of what it will add to the front and one may stop after each. A trial that shows good
  news has an index above the one it started with, so what deserves to be finished is finished; a slow starter keeps
  a high index as long as the model, which has seen the curves of similar students, expects it to catch up.
  (Weitzman 1979, "Optimal search for the best alternative"; Gittins 1979.)
* :func:`decide` needs only the other trials at the same rung: asynchronous successive halving by front number and
  epsilon-net, on losses carried forward to the top rung by what finished trials of similar cost still gained from here;
  a trial that cannot join the front even if it gains more than nine in ten of those did is stopped at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from autodistill.search.objectives import pareto
from autodistill.search.storage.history import Outcome

Floats = npt.NDArray[np.float64]

GRID = np.linspace(-4.0, 4.0, 33)
"""Posterior means of the final loss that a trial may show, in its current standard deviations from the current mean."""


MIN_FINISHED = 6
NEAREST = 5


@dataclass(frozen=True)
class RungDecision:
    """Answer to a report.

    Attributes:
        go_on: train to the next rung now.
        why: one sentence for ``show N``.
        final: a trial that does not go on never will; otherwise it is paused.
    """

    go_on: bool
    why: str
    final: bool = False


@dataclass(frozen=True)
class Action:
    """What to do next.

    Attributes:
        trial: number of the paused trial to continue; ``None``: start a new candidate.
        index: expected front gain per unit of work.
        why: one sentence.
        epoch: work of one epoch of the new candidate; 0 where it is not known.
    """

    trial: int | None
    index: float
    why: str
    epoch: float = 0.0


@dataclass(frozen=True)
class PausedTrial:
    """What a paused trial may still add.

    Attributes:
        trial: its number.
        gain: expected front gain, as a share of the box.
        work: work that is left to the top rung.
        index: see :func:`index`.
    """

    trial: int
    gain: float
    work: float
    index: float


@dataclass(frozen=True)
class Peers:
    """Scaled losses of all trials that have reported at one rung, the trial to judge among them.

    Attributes:
        losses: ``(trials, objectives)`` at this rung; objective 0 is the trained one, the others are known.
        final: ``(trials, objectives)`` at the top rung, NaN rows for trials that are not there.
        wanted: the worst loss of objective 0 at the top rung that is of use; what is expected to end beyond it comes
            after all others.
    """

    losses: Floats
    final: Floats
    wanted: float = np.inf


def decide(peers: Peers, trial: int, *, eta: float = 3.0) -> RungDecision:
    """Whether a trial goes on from this rung.

    Args:
        peers: all that have reported here.
        trial: row of the trial to judge.
        eta: one in ``eta`` goes on.
    """
    count = len(peers.losses)
    if count < eta:
        return RungDecision(True, f"only {count} at this rung so far: too few to compare")
    expected, spread = carried_forward(peers)
    finished = peers.final[np.isfinite(peers.final).all(axis=1)]
    hopeful = expected[trial].copy()
    hopeful[0] -= spread
    if len(finished) >= MIN_FINISHED and (finished <= hopeful).all(axis=1).any():
        return RungDecision(
            False, "even a late gain like the best tenth of others would leave it behind a finished trial"
        )
    useless = expected[:, 0] - spread > peers.wanted  # even if it gains as much as the best tenth did
    if useless[trial] and (finished[:, 0] <= peers.wanted).any():
        return RungDecision(
            False, "even a late gain like the best tenth of others would leave it short of what is wanted"
        )
    place = sorted(front_order(expected), key=useless.__getitem__).index(trial) + 1
    allowed = int(np.ceil(count / eta))
    words = f"place {place} of {count} by front number and epsilon-net; the first {allowed} go on"
    return RungDecision(place <= allowed, words)


def front_order(losses: Floats) -> list[int]:
    """Rows, best first: by front number, and inside a front in the order of the epsilon-net."""
    ranks = pareto.nondominated_ranks(losses)
    out: list[int] = []
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        out += members[pareto.epsilon_net_order(losses[members])].tolist()
    return out


def carried_forward(peers: Peers) -> tuple[Floats, float]:
    """Losses expected at the top rung, and how much more than expected the best tenth of finished trials gained.

    The gain from here to the top is the median of the ``NEAREST`` finished trials in known costs: larger students,
    which start slowly, are compared by where students of their size end.
    """
    done = np.flatnonzero(np.isfinite(peers.final).all(axis=1))
    expected = peers.losses.copy()
    if len(done) < MIN_FINISHED:
        return expected, np.inf
    gained = peers.losses[done, 0] - peers.final[done, 0]
    distance = np.linalg.norm(peers.losses[:, None, 1:] - peers.losses[None, done, 1:], axis=2)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :NEAREST]
    typical = np.median(gained[nearest], axis=1)
    expected[:, 0] -= typical
    expected[done] = peers.final[done]
    return expected, max(float(np.quantile(gained - typical[done], 0.9)), 0.0)


def standings(trials: Sequence[Outcome], gain: Floats, work: Floats, index: Floats) -> dict[int, PausedTrial]:
    """Standings by trial number."""
    rows = zip(trials, gain.tolist(), work.tolist(), index.tolist(), strict=True)
    return {trial.number: PausedTrial(trial.number, *figures) for trial, *figures in rows}


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
    for _ in range(24):
        price = 0.5 * (low + high)
        value = gain
        for k in reversed(range(len(moves))):
            value = (moves[k] @ value[:, :, None])[:, :, 0] - (price * work[:, k])[:, None]
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
