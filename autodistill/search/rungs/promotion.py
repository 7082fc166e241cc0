"""Comparison of trials at rungs: which trial continues, and whether a new candidate or a paused trial is trained next.

These are pure functions, independent of Optuna. There are two rules:

* :func:`index` is the better one and needs a model. It is the Gittins index of "train this candidate rung by rung, stop
  when it disappoints": the highest price per unit of work at which training still pays in expectation, if every rung
  reveals a part of the final gain and training may stop after each. A trial with good results has a higher index than
  when it started, so promising trials are finished. A slow starter keeps a high index as long as the model, which has
  data on the curves of similar students, expects it to catch up. (Weitzman 1979, "Optimal search for the best
  alternative"; Gittins 1979.)
* :func:`decide` needs only the other trials at the same rung. It is asynchronous successive halving by front number and
  epsilon-net, on losses carried forward to the top rung: the gain from here to the top is that of finished trials of
  similar cost. A trial that cannot join the front even with a gain in the best tenth is stopped at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from autodistill.search.objectives import pareto
from autodistill.search.rungs.levels import RungDecision
from autodistill.search.storage.history import Outcome

Floats = npt.NDArray[np.float64]

GRID = np.linspace(-4.0, 4.0, 33)
"""Possible posterior means of the final loss, in standard deviations from the present mean."""


MIN_FINISHED = 6
"""Finished trials needed to carry losses forward."""

NEAREST = 5
"""Finished trials, nearest in known costs, from which the gain to the top rung is estimated."""


@dataclass(frozen=True)
class Action:
    """Choice of the next work.

    Attributes:
        trial: number of the paused trial to continue; ``None`` to start a new candidate.
        index: expected gain of the front per unit of work.
        why: reason in one sentence.
        epoch: work of one epoch of the new candidate; 0 if unknown.
    """

    trial: int | None
    index: float
    why: str
    epoch: float = 0.0


@dataclass(frozen=True)
class PausedTrial:
    """Expected gain and work of a paused trial.

    Attributes:
        trial: number of the trial.
        gain: expected gain of the front, as a share of the hypervolume box.
        work: work left to the top rung.
        index: see :func:`index`.
    """

    trial: int
    gain: float
    work: float
    index: float


@dataclass(frozen=True)
class Peers:
    """Scaled losses of all trials that have reported at one rung, including the trial to decide on.

    Attributes:
        losses: ``(trials, objectives)`` at this rung; objective 0 is trained, the others are known.
        final: ``(trials, objectives)`` at the top rung; NaN rows for trials that have not reached it.
        wanted: worst wanted loss of objective 0 at the top rung; trials expected to end beyond it come last.
    """

    losses: Floats
    final: Floats
    wanted: float = np.inf


def decide(peers: Peers, trial: int, *, eta: float = 3.0) -> RungDecision:
    """Decide whether a trial continues from this rung.

    Args:
        peers: losses of all trials that have reported here.
        trial: row of the trial to decide on.
        eta: one trial in ``eta`` continues.
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
    useless = expected[:, 0] - spread > peers.wanted  # even with the gain of the best tenth
    if useless[trial] and (finished[:, 0] <= peers.wanted).any():
        return RungDecision(
            False, "even a late gain like the best tenth of others would leave it short of what is wanted"
        )
    place = sorted(front_order(expected), key=useless.__getitem__).index(trial) + 1
    allowed = int(np.ceil(count / eta))
    words = f"place {place} of {count} by front number and epsilon-net; the first {allowed} go on"
    return RungDecision(place <= allowed, words)


def front_order(losses: Floats) -> list[int]:
    """Return rows, best first: by front number, and within a front in epsilon-net order."""
    ranks = pareto.nondominated_ranks(losses)
    out: list[int] = []
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        out += members[pareto.epsilon_net_order(losses[members])].tolist()
    return out


def carried_forward(peers: Peers) -> tuple[Floats, float]:
    """Return losses expected at the top rung, and by how much the best tenth of finished trials exceeded expectation.

    The gain from here to the top is the median of the ``NEAREST`` finished trials in known costs. Larger students start
    slowly; they are thus compared by where students of their size end.
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
    """Return the expected gain and work of paused trials, by trial number."""
    rows = zip(trials, gain.tolist(), work.tolist(), index.tolist(), strict=True)
    return {trial.number: PausedTrial(trial.number, *figures) for trial, *figures in rows}


def index(gain: Floats, resolved: Floats, work: Floats) -> Floats:
    """Return the Gittins index of each trial: gain of the front per unit of work, not negative.

    Args:
        gain: ``(trials, len(GRID))`` gain of the front if the final loss is the mean plus ``GRID`` deviations.
        resolved: ``(trials, rungs)`` share of the final loss's variance resolved at each remaining rung, not
            decreasing; the last is 1.
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
    """Return weights ``(trials, from, to)`` for the exact mean of a piecewise linear function after a normal step."""
    spacing = GRID[1] - GRID[0]
    knots = np.concatenate([[GRID[0] - spacing], GRID, [GRID[-1] + spacing]])
    deviation = np.maximum(step, 1e-6)[:, None, None]
    z = (knots[None, None, :] - GRID[None, :, None]) / deviation
    below = deviation * (z * ndtr(z) + np.exp(-0.5 * np.minimum(z * z, 1400.0)) / np.sqrt(2 * np.pi))
    weights = (below[:, :, 2:] - 2 * below[:, :, 1:-1] + below[:, :, :-2]) / spacing
    weights = np.maximum(weights, 0.0)
    # probability outside the grid is added to its ends
    weights[:, :, 0] += np.maximum(1.0 - weights.sum(axis=2), 0.0) * (GRID[None, :] < 0)
    weights[:, :, -1] += np.maximum(1.0 - weights.sum(axis=2), 0.0)
    out: Floats = weights
    return out
