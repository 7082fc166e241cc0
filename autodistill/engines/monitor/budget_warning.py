"""Notices while a search runs that the time left holds no full training: its front may stay empty.

Not the trials that run are asked alone: the first ones are spread over the costs, and a search may still train its
cheapest student when they are far too slow. Only trainings to the top rung are on the front, so this is worth saying
while something can still be done about it.
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
"""Seconds that a training is watched before its pace is believed."""

MARGIN = 1.5
"""How many times too slow every training must be: first trials fill caches, and later ones are quicker."""

BLIND = 2.0
"""The same where no costs of other students are known, which may be quicker than those that run."""

WISHED = 4
"""Full trainings, one after the other, that a suggestion makes room for."""


@dataclass(frozen=True)
class BudgetWarning:
    """No training that is known of is anywhere near the top rung in the time left.

    Attributes:
        who: would be there first, in words.
        epochs: of a full training.
        needed: seconds that it needs.
        left: seconds of the budget.
        budget: seconds of budget that the study needs in all: what it has spent, and a few full trainings of the
            quickest student.
        fewer: epochs of which a few full trainings would have fitted; 0 when not even one epoch does, or all would.
    """

    who: str
    epochs: float
    needed: float
    left: float
    budget: float
    fewer: int

    def words(self) -> str:
        """What is the matter."""
        needed = self.needed if self.needed < 60 else rounded(self.needed)
        return (
            f"no full training of {self.epochs:g} epochs is in sight: {self.who} needs about "
            f"{format_seconds(round(needed))} and {format_seconds(round(self.left))} are left; "
            "the front may stay empty"
        )

    def advice(self, budget: str = "") -> str:
        """What to do about it.

        Args:
            budget: to name in place of the seconds that are needed.
        """
        fewer = f", or about --epochs {self.fewer} in a new study" if self.fewer else ""
        return f"give it about --budget {budget or Budget(seconds=self.budget)}{fewer}"


@dataclass
class BudgetWatch:
    """Watches the epochs of running trials go by."""

    _begun: dict[int, tuple[float, float]] = field(default_factory=dict)
    _seen: dict[int, tuple[float, float]] = field(default_factory=dict)
    _since: float = math.inf
    _last: float = -math.inf
    _quickest: float = 0.0

    def note(self, line: WorkerLine, now: float) -> None:
        """A trial is at ``line.epoch`` at ``now`` (seconds)."""
        self._since, self._last = min(self._since, now), now
        self._begun.setdefault(line.number, (now, line.epoch))
        self._seen[line.number] = (now, line.epoch)

    def forget(self, number: int) -> None:
        """A trial has ended; its pace starts anew when it goes on."""
        self._begun.pop(number, None)
        self._seen.pop(number, None)

    def pace(self, number: int) -> float | None:
        """Epochs per second of a trial; ``None`` while too little was seen."""
        (start, first), (now, last) = self._begun.get(number, (0.0, 0.0)), self._seen.get(number, (0.0, 0.0))
        return (last - first) / (now - start) if now - start >= LISTEN and last > first else None

    def rates(self) -> dict[int, float]:
        """Seconds per epoch of the trials whose pace is known."""
        return {number: 1 / pace for number in self._seen if (pace := self.pace(number)) is not None}

    def shortage(
        self, lines: Iterable[WorkerLine], used: float, left: float, prospect: Prospect, *, over: bool = False
    ) -> BudgetWarning | None:
        """Whether the trainings that run, those that are paused, and that of the cheapest student are all too slow.

        Args:
            lines: what the workers are doing.
            used: seconds of the budget that are spent.
            left: seconds of the budget that are left.
            prospect: what could be trained in place of what runs.
            over: the search has ended, so that its front is empty whatever would still have fitted.
        """
        running = [(line, self.pace(line.number)) for line in lines]
        known = [(line, pace) for line, pace in running if pace is not None]
        if len(known) < len(running) or not (known or prospect.epoch):
            return None
        others = [1 / prospect.epoch] if prospect.epoch else []
        self._quickest = quickest = max(self._quickest, *(pace for _, pace in known), *others)
        needed, who = _nearest(known, prospect)
        if not over and needed <= (MARGIN if prospect.epoch else BLIND) * left:
            return None
        training = max(0.0, self._last - self._since)
        room = (left + training) * quickest / WISHED
        budget = rounded(used + max(needed, WISHED * prospect.epochs / quickest))
        fewer = int(_leading(room)) if room < prospect.epochs else 0
        return BudgetWarning(who, prospect.epochs, needed, left, budget, fewer)


def _nearest(known: Sequence[tuple[WorkerLine, float]], prospect: Prospect) -> tuple[float, str]:
    """Seconds to the top rung of the training that is nearest to it, and which one that is."""
    options = [((e.epochs - e.epoch) / pace, f"#{e.number}, the nearest to it,") for e, pace in known]
    if prospect.paused:
        options.append((prospect.paused, "the nearest paused trial"))
    if prospect.epoch:
        options.append((prospect.epochs * prospect.epoch, "even the cheapest student"))
    return min(options)


def rounded(seconds: float) -> float:
    """Up to whole minutes, and from ten on to five of them."""
    minutes = math.ceil(seconds / 60)
    return 60.0 * (minutes if minutes < 10 else math.ceil(minutes / 5) * 5)


def _leading(value: float) -> float:
    """Down to one digit: 87 to 80."""
    if value < 1:
        return 0.0
    size: float = 10.0 ** math.floor(math.log10(value))
    return math.floor(value / size) * size
