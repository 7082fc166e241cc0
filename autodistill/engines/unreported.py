"""Work that a trial has done since its last report, as its engine sees it: what a failure has cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Unreported:
    """Work of one trial that no report has told of.

    Attributes:
        epoch: what its training last said of its progress, counted from the trial's beginning; 0 where it says nothing.
    """

    epoch: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Work begins, or goes on after a report was answered."""
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since then."""
        return time.monotonic() - self._since
