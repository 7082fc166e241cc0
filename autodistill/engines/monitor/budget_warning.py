"""Detection, while a search runs, that no full training fits into the time left, so that the front may stay empty.

Only trainings to the top rung are on the front, so the user is warned while the budget can still be changed. The check
does not rely on running trials alone: the first trials are spread over the costs, and a search may still train its
cheapest student when they are far too slow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autodistill.core.budget import Budget, format_seconds

if TYPE_CHECKING:
    from autodistill.engines.monitor.worker_line import WorkerLine
    from autodistill.search.study.scheduler import Prospect

LISTEN = 5.0
"""Seconds that a training is observed before its speed is used."""

MARGIN = 1.5
"""A warning needs every training to be this many times too slow: first trials fill caches, later ones are faster."""

BLIND = 2.0
"""The same if no costs of other students are known, which may be faster than the running ones."""

WISHED = 4
"""Number of full trainings, one after the other, that a suggested budget has room for."""


@dataclass(frozen=True)
class BudgetWarning:
    """Warning that no known training will reach the top rung in the time left.

    Attributes:
        training: Training that would reach it first, in words.
        epochs: Epochs of a full training.
        needed: Seconds that this training still needs.
        left: Seconds of the budget that are left.
        budget: Suggested total budget in seconds: the time spent, plus a few full trainings of the fastest student.
        fewer: Epochs with which a few full trainings would fit; 0 if not even one epoch fits, or all epochs do.
    """

    training: str
    epochs: float
    needed: float
    left: float
    budget: float
    fewer: int

    def words(self) -> str:
        """Describe the problem."""
        needed = self.needed if self.needed < 60 else rounded(self.needed)
        return (
            f"no full training of {self.epochs:g} epochs is expected to finish: {self.training} needs about "
            f"{format_seconds(round(needed))} and {format_seconds(round(self.left))} are left; "
            "the front may stay empty"
        )

    def advice(self, budget: str = "") -> str:
        """Suggest a larger budget or fewer epochs.

        Args:
            budget: Budget to suggest instead of :attr:`budget`.
        """
        fewer = f", or about --epochs {self.fewer} in a new study" if self.fewer else ""
        return f"use about --budget {budget or Budget(seconds=self.budget)}{fewer}"


@dataclass
class BudgetWatch:
    """Observer of the epochs of running trials that issues a :class:`BudgetWarning`."""

    _begun: dict[int, tuple[float, float]] = field(default_factory=dict)
    _seen: dict[int, tuple[float, float]] = field(default_factory=dict)
    _since: float = math.inf
    _last: float = -math.inf
    _quickest: float = 0.0

    def note(self, line: WorkerLine, now: float) -> None:
        """Record that a trial is at ``line.epoch`` at the time ``now`` (seconds)."""
        self._since, self._last = min(self._since, now), now
        self._begun.setdefault(line.number, (now, line.epoch))
        self._seen[line.number] = (now, line.epoch)

    def forget(self, number: int) -> None:
        """Forget a trial that has ended or waits; if it continues, its speed is measured anew."""
        self._begun.pop(number, None)
        self._seen.pop(number, None)

    def speed(self, number: int) -> float | None:
        """Return the epochs per second of a trial; ``None`` while it was observed too briefly."""
        (start, first), (now, last) = self._begun.get(number, (0.0, 0.0)), self._seen.get(number, (0.0, 0.0))
        return (last - first) / (now - start) if now - start >= LISTEN and last > first else None

    def rates(self) -> dict[int, float]:
        """Return the seconds per epoch of the trials whose speed is known, by trial number."""
        return {number: 1 / speed for number in self._seen if (speed := self.speed(number)) is not None}

    def shortage(
        self, lines: Iterable[WorkerLine], used: float, left: float, prospect: Prospect, *, over: bool = False
    ) -> BudgetWarning | None:
        """Return a warning if running trials, paused trials and the cheapest student are all too slow, else ``None``.

        Args:
            lines: State of the busy workers.
            used: Seconds of the budget that are spent.
            left: Seconds of the budget that are left.
            prospect: Trainings that are possible besides the running ones.
            over: Whether the search has ended, so that its front is empty in any case.
        """
        running = [(line, self.speed(line.number)) for line in lines]
        known = [(line, speed) for line, speed in running if speed is not None]
        if len(known) < len(running) or not (known or prospect.epoch):
            return None
        others = [1 / prospect.epoch] if prospect.epoch else []
        self._quickest = quickest = max(self._quickest, *(speed for _, speed in known), *others)
        needed, training = _nearest(known, prospect)
        if not over and needed <= (MARGIN if prospect.epoch else BLIND) * left:
            return None
        observed = max(0.0, self._last - self._since)
        room = (left + observed) * quickest / WISHED
        budget = rounded(used + max(needed, WISHED * prospect.epochs / quickest))
        fewer = int(_leading(room)) if room < prospect.epochs else 0
        return BudgetWarning(training, prospect.epochs, needed, left, budget, fewer)


def _nearest(known: Sequence[tuple[WorkerLine, float]], prospect: Prospect) -> tuple[float, str]:
    """Return the seconds until the first training would reach the top rung, and that training in words."""
    options = [((e.epochs - e.epoch) / speed, f"#{e.number}, the closest to its end,") for e, speed in known]
    if prospect.paused:
        options.append((prospect.paused, "the paused trial closest to its end"))
    if prospect.epoch:
        options.append((prospect.epochs * prospect.epoch, "even the cheapest student"))
    return min(options)


def rounded(seconds: float) -> float:
    """Round seconds up to whole minutes, and from ten minutes on to multiples of five."""
    minutes = math.ceil(seconds / 60)
    return 60.0 * (minutes if minutes < 10 else math.ceil(minutes / 5) * 5)


def _leading(value: float) -> float:
    """Round down to one significant digit, e.g. 87 to 80."""
    if value < 1:
        return 0.0
    size: float = 10.0 ** math.floor(math.log10(value))
    return math.floor(value / size) * size
