"""Rungs: the fidelities (epochs) at which trials are compared, and the rule that stops the worst ones.

The rule is asynchronous successive halving (Li 2020, arXiv:1810.05934) with a multi-objective priority (MO-ASHA,
Schmucker 2021, arXiv:2106.12639): non-dominated rank first, epsilon-net order within a rank, so that the trials kept
are spread over the front. Optuna's pruners do not support multi-objective studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autodistill.core.errors import UsageError
from autodistill.search.objectives.pareto import epsilon_net_order, nondominated_ranks


@dataclass(frozen=True)
class RungDecision:
    """Decision on a report.

    Attributes:
        go_on: train to the next rung now.
        why: one sentence for ``show N``.
        final: a trial that does not continue never will; otherwise it is paused.
    """

    go_on: bool
    why: str
    final: bool = False


@dataclass(frozen=True)
class Rungs:
    """Cumulative epochs at rungs 1, 2, …; only trials at the last, the top rung, can be on the front.

    Attributes:
        levels: strictly increasing epochs.
        eta: about one trial in ``eta`` continues from each rung.
        stopping: whether trials are compared below the top rung.

    Raises:
        UsageError: the levels are not increasing numbers above 0, or ``eta`` is below 2.
    """

    levels: tuple[int, ...]
    eta: int = 3
    stopping: bool = True

    def __post_init__(self) -> None:
        increasing = all(a < b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if not self.levels or self.levels[0] < 1 or not increasing:
            raise UsageError(f"rungs must be increasing numbers of epochs above 0, got {list(self.levels)}.")
        if self.eta < 2:
            raise UsageError(f"eta must be at least 2, got {self.eta}.")

    @staticmethod
    def geometric(top: int, *, eta: int = 3, lowest_share: float = 0.05) -> Rungs:
        """Return levels ``top, top/eta, top/eta², …`` down to ``lowest_share`` of the top.

        Below about 5 % of the top, the ranking of students says little about the final one (epoch 1 of 52 on LCBench).
        """
        levels = [top]
        while levels[0] // eta >= max(1, lowest_share * top) and levels[0] // eta < levels[0]:
            levels.insert(0, levels[0] // eta)
        return Rungs(tuple(levels), eta)

    @staticmethod
    def off(top: int) -> Rungs:
        """Return rungs with which every trial trains to the top."""
        return Rungs((top,), stopping=False)

    @property
    def top(self) -> int:
        """Number of the top rung (rungs count from 1)."""
        return len(self.levels)

    @property
    def reached(self) -> str:
        """Message for a trial that has reached the top rung."""
        return f"reached the top rung ({self.levels[-1]} epochs)"

    def decide(self, rung: int, own: Sequence[float], others: Sequence[Sequence[float]]) -> RungDecision:
        """Decide whether the trial that just reported ``own`` at ``rung`` continues.

        Args:
            rung: rung of the report, ≥ 1.
            own: losses of the trial (smaller is better in every objective), ``(objectives,)``.
            others: losses at the same rung of all other trials that reached it, ``(trials, objectives)``.
        """
        if rung >= self.top:
            return RungDecision(False, self.reached)
        if not self.stopping or len(others) + 1 < self.eta:
            return RungDecision(True, f"goes on from rung {rung}: fewer than {self.eta} trials to compare with")
        losses = np.array([own, *others], dtype=float)
        ranks = nondominated_ranks(losses)
        order = _priority(losses, ranks)
        place = int(np.flatnonzero(order == 0)[0]) + 1
        kept = max(1, len(losses) // self.eta)
        word = "goes on from" if place <= kept else "stopped at"
        return RungDecision(
            place <= kept,
            f"{word} rung {rung} ({self.levels[rung - 1]} epochs): place {place} of {len(losses)} "
            f"(non-dominated rank {int(ranks[0]) + 1}), the first {kept} go on",
        )


def _priority(losses: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Return the indices of all trials, best first: by rank, then in epsilon-net order within a rank."""
    order: list[int] = []
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        order.extend(members[epsilon_net_order(losses[members])])
    return np.array(order)
