"""Clock of the working time of a trial, over several processes and pauses."""

from __future__ import annotations

import time


class WorkClock:
    """Clock that counts seconds of work.

    It does not count the time that the receiver of a report takes, or waits for the measurement of another process.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._since = time.monotonic()

    def start(self) -> None:
        """Start counting, after a pause."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """Stop counting, for a pause."""
        self._spent = self.seconds()

    def add(self, seconds: float) -> None:
        """Add the seconds of work of an earlier process."""
        self._spent += seconds

    def leave_out(self, seconds: float) -> None:
        """Subtract seconds for which the work waited while the clock ran."""
        self._spent -= seconds

    def seconds(self) -> float:
        """Return the seconds of work so far; call it while the clock runs."""
        return self._spent + time.monotonic() - self._since
