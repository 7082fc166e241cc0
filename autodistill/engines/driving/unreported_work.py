"""Work of a trial since its last report, measured by its engine, so that failed trials are charged correctly."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from autodistill.core.records import Report


@dataclass
class UnreportedWork:
    """Work of one trial that no report contains yet.

    Attributes:
        epoch: Last epoch that the training reported as progress, from the trial's beginning; 0 if it reports none.
    """

    epoch: float = 0.0
    _before: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Record that work begins, or continues after a report."""
        self._since = time.monotonic()

    def leave_out(self, seconds: float) -> None:
        """Subtract seconds in which the trial waited for another process."""
        self._before -= seconds

    def reported(self, report: Report) -> float:
        """Record a report, and return the seconds of work since the previous one.

        If the report of the known costs (rung 0) states no seconds, its work is added to the next report.
        """
        seconds = self.seconds
        self._before = 0.0 if report.rung or report.seconds else seconds
        self.begin()
        return seconds

    @property
    def seconds(self) -> float:
        """Return the seconds of work up to now."""
        return self._before + time.monotonic() - self._since
