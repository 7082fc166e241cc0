"""Trainings that stand still: no sign of progress for many times as long as is usual for them.

A sign is a progress message of a training, at most one a second. Only training is watched: not the evaluation of a
network, the wait for a decision, or the wait for a measurement, which a worker reports now and then. How long the first
sign of a training may take is learnt from earlier trainings. The very first one has no limit, and neither has an
evaluation of the user's own that reports no progress.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from dataclasses import dataclass, field

from autodistill.core.budget import format_seconds

MANY = 30.0
"""How many times longer than usual a training must be silent."""

LEAST_SECONDS = 300.0
"""How long it must be silent at least: decoding, compilation and a crowded machine take minutes."""

_FEW = 5  # signs from which what is usual is known
_KEPT = 101


@dataclass
class Pulse:
    """Signs of progress of one trial.

    Attributes:
        since: when it began to be silent; ``None`` while it does something else than train.
        heard: it has told of progress since it began, or went on after a report.
        gaps: seconds between two signs, the newest ones.
    """

    since: float | None = None
    heard: bool = False
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def begin(self) -> None:
        """Training begins, or goes on after a report."""
        self.since, self.heard = time.monotonic(), False

    def rest(self) -> None:
        """It does something else than train, until it tells of progress again."""
        self.since = None

    def excuse(self) -> None:
        """It waits for a measurement: its silence up to now has a reason."""
        self.since = None if self.since is None else time.monotonic()


class Hangs:
    """Judges the silence of trainings by how long their signs of progress usually take."""

    def __init__(self) -> None:
        self._slowest_start: float | None = None

    def beat(self, pulse: Pulse) -> None:
        """A training told of progress."""
        now = time.monotonic()
        if pulse.since is not None:
            if pulse.heard:
                pulse.gaps.append(now - pulse.since)
            else:
                self._slowest_start = max(self._slowest_start or 0.0, now - pulse.since)
        pulse.since, pulse.heard = now, True

    def verdict(self, pulse: Pulse) -> str:
        """Why a training is taken to stand still, in words; empty where it is not."""
        usual = statistics.median(pulse.gaps) if pulse.heard and len(pulse.gaps) >= _FEW else self._slowest_start
        if pulse.since is None or usual is None:
            return ""
        silent = time.monotonic() - pulse.since
        if silent <= max(LEAST_SECONDS, MANY * usual):
            return ""
        return f"no progress for {format_seconds(silent)}, where {format_seconds(usual)} are usual"
