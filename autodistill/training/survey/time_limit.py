"""Time limit of a survey, and the share of it for counting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_GROUP = 4
"""Students in the first group of a survey, before the time per student is known."""

COUNT_SHARE = 0.4
"""Share of a limited time in which students are counted before any is measured."""

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)``."""


@dataclass(frozen=True)
class Hours:
    """Time limit of a survey, in seconds of ``time.monotonic``.

    Attributes:
        end: time after which no student is measured, if at least ``least`` have been.
        least: number of students to measure even after ``end``.
        last: time after which nothing more is measured, however few students have been.
    """

    end: float = math.inf
    least: int = 0
    last: float = math.inf

    def left(self, measured: int) -> float:
        """Return the seconds left if so many students have been measured."""
        return (self.last if measured < self.least else self.end) - time.monotonic()


ALWAYS = Hours()
