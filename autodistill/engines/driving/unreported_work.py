"""Work that a trial has done since its last report, as its engine sees it: what failures cost and reports leave out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from autodistill.core.records import Report


@dataclass
class UnreportedWork:
    """Work of one trial that no report has told of.

    Attributes:
        epoch: what its training last said of its progress, counted from the trial's beginning; 0 where it says nothing.
    """

    epoch: float = 0.0
    _before: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Work begins, or goes on after a report was answered."""
        self._since = time.monotonic()

    def leave_out(self, seconds: float) -> None:
        """So many seconds were no work: it waited for another process."""
        self._before -= seconds

    def told(self, report: Report) -> float:
        """A report came: the seconds of work before it that it may have left out.

        What the known costs took counts with the next report, where theirs does not tell.
        """
        seconds = self.seconds
        self._before = 0.0 if report.rung or report.seconds else seconds
        self.begin()
        return seconds

    @property
    def seconds(self) -> float:
        """Of work up to now."""
        return self._before + time.monotonic() - self._since
