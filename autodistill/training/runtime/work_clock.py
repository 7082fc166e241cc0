"""How long a trial has worked, over processes and pauses."""

from __future__ import annotations

import time


class WorkClock:
    """Seconds of work, without the time for which the reader of the reports holds them, or another process measures."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._since = time.monotonic()

    def start(self) -> None:
        """Work goes on."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """Work pauses."""
        self._spent = self.seconds()

    def add(self, seconds: float) -> None:
        """Count work of an earlier process."""
        self._spent += seconds

    def leave_out(self, seconds: float) -> None:
        """The work waited for so long while the clock ran."""
        self._spent -= seconds

    def seconds(self) -> float:
        """Work so far."""
        return self._spent + time.monotonic() - self._since
