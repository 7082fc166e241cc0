"""Detection of hung trainings: no progress message for many times the usual interval.

A training sends at most one progress message per second. Only training is monitored, not the evaluation of a network,
the wait for a decision, or the wait for a measurement (which workers report). The limit for the first message of a
training is learnt from earlier trainings. The very first training has no limit, and neither has a user's own evaluation
that reports no progress.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from dataclasses import dataclass, field

from autodistill.core.budget import format_seconds

MANY = 30.0
"""A training counts as hung after this many times the usual interval without a message."""

LEAST_SECONDS = 300.0
"""Shortest time in seconds until a training counts as hung: decoding, compilation and a busy machine take minutes."""

_FEW = 5  # fewest intervals from which the usual interval is computed
_KEPT = 101  # number of intervals that are kept


@dataclass
class Pulse:
    """Progress messages of one trial.

    Attributes:
        since: Time of the last message (monotonic clock, seconds); ``None`` while the trial is not training.
        heard: Whether a message has come since the training began or continued after a report.
        gaps: Seconds between messages, the newest ones.
    """

    since: float | None = None
    heard: bool = False
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def begin(self) -> None:
        """Record that training begins, or continues after a report."""
        self.since, self.heard = time.monotonic(), False

    def rest(self) -> None:
        """Stop monitoring until the next message: the trial does something other than training."""
        self.since = None

    def excuse(self) -> None:
        """Restart the interval: the trial was waiting for a measurement."""
        self.since = None if self.since is None else time.monotonic()


class Hangs:
    """Detector of hung trainings that learns the usual interval between progress messages."""

    def __init__(self) -> None:
        self._slowest_start: float | None = None

    def beat(self, pulse: Pulse) -> None:
        """Record a progress message of a training."""
        now = time.monotonic()
        if pulse.since is not None:
            if pulse.heard:
                pulse.gaps.append(now - pulse.since)
            else:
                self._slowest_start = max(self._slowest_start or 0.0, now - pulse.since)
        pulse.since, pulse.heard = now, True

    def verdict(self, pulse: Pulse) -> str:
        """Return why a training counts as hung; empty if it does not."""
        usual = statistics.median(pulse.gaps) if pulse.heard and len(pulse.gaps) >= _FEW else self._slowest_start
        if pulse.since is None or usual is None:
            return ""
        silent = time.monotonic() - pulse.since
        if silent <= max(LEAST_SECONDS, MANY * usual):
            return ""
        return f"no progress for {format_seconds(silent)}; usual are {format_seconds(usual)}"
