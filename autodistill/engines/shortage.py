"""Notices while a search runs that the time left holds no full training: its front would be empty.

Only trainings to the top rung are on the front, so this is worth saying while something can still be done about it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autodistill.search.budget import Budget, format_seconds

if TYPE_CHECKING:
    from autodistill.engines.watch import WorkerLine

LISTEN = 5.0
"""Seconds that a training is watched before its pace is believed."""

MARGIN = 2.0
"""How many times too slow every running training must be: other students may be quicker than these."""

WISHED = 4
"""Full trainings, one after the other, that a suggestion makes room for."""


@dataclass(frozen=True)
class Shortage:
    """No training that runs is anywhere near the top rung in the time left.

    Attributes:
        number: the trial that would be there first.
        epochs: of a full training.
        needed: seconds that it still needs at its pace.
        left: seconds of the budget.
        budget: seconds of budget that would hold a few full trainings at the quickest pace seen.
        fewer: epochs of which a few full trainings would have fitted; 0 when not even one epoch does.
    """

    number: int
    epochs: float
    needed: float
    left: float
    budget: float
    fewer: int

    def words(self) -> str:
        """What is the matter."""
        return (
            f"no full training of {self.epochs:g} epochs is in sight: #{self.number}, the nearest to it, needs "
            f"{format_seconds(rounded(self.needed))} more and {format_seconds(round(self.left))} are left; "
            "the front will be empty"
        )

    def advice(self) -> str:
        """What to do about it."""
        fewer = f", or about --epochs {self.fewer} in a new study" if self.fewer else ""
        return f"give it about --budget {Budget(seconds=self.budget)}{fewer}"


@dataclass
class Lookout:
    """Watches the epochs of running trials go by."""

    _begun: dict[int, tuple[float, float]] = field(default_factory=dict)
    _seen: dict[int, tuple[float, float]] = field(default_factory=dict)
    _since: float = math.inf
    _quickest: float = 0.0

    def note(self, line: WorkerLine, now: float) -> None:
        """A trial is at ``line.epoch`` at ``now`` (seconds)."""
        self._since = min(self._since, now)
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

    def shortage(self, lines: Iterable[WorkerLine], used: float, left: float) -> Shortage | None:
        """Whether the trainings that run now are all too slow by far.

        Args:
            lines: what the workers are doing.
            used: seconds of the budget that are spent.
            left: seconds of the budget that are left.
        """
        running = [(line, self.pace(line.number)) for line in lines]
        known = [(line, pace) for line, pace in running if pace is not None]
        if not known or len(known) < len(running):
            return None
        self._quickest = quickest = max(self._quickest, *(pace for _, pace in known))
        needed, line = min((((e.epochs - e.epoch) / pace, e) for e, pace in known), key=lambda pair: pair[0])
        if needed <= MARGIN * left:
            return None
        training = max(now for now, _ in self._seen.values()) - self._since
        room = (left + training) * quickest / WISHED
        return Shortage(
            line.number,
            line.epochs,
            needed,
            left,
            rounded(used - training + WISHED * line.epochs / quickest),
            int(_leading(room)),
        )


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
