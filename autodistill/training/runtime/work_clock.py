"""Clock of the working time of a trial, over several processes and pauses."""

from __future__ import annotations

import time


class WorkClock:
    """Clock that counts seconds of work. It stands still until :meth:`start`.

    It does not count the time that the receiver of a report takes, or waits for the measurement of another process.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._since: float | None = None  # start of the period that is being counted

    def start(self) -> None:
        """Start counting; without effect while the clock runs."""
        if self._since is None:
            self._since = time.monotonic()

    def stop(self) -> None:
        """Stop counting, for a pause; without effect while the clock stands still."""
        self._spent, self._since = self.seconds(), None

    def add(self, seconds: float) -> None:
        """Add the seconds of work of an earlier process."""
        self._spent += seconds

    def leave_out(self, seconds: float) -> None:
        """Subtract seconds for which the work waited while the clock ran."""
        self._spent -= seconds

    def seconds(self) -> float:
        """Return the seconds of work so far."""
        return self._spent + (0.0 if self._since is None else time.monotonic() - self._since)
