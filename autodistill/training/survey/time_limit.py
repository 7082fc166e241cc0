"""How long a survey may take, and how much of that is for counting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_GROUP = 4

COUNT_SHARE = 0.4
"""Part of a limited time in which students are counted before any is measured."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Hours:
    """When a survey ends, as moments of ``time.monotonic``.

    Attributes:
        end: nothing more is measured after it.
        least: so many students are measured all the same,
        last: where it is not later than this.
    """

    end: float = math.inf
    least: int = 0
    last: float = math.inf

    def left(self, measured: int) -> float:
        """Seconds that are left when so many students are measured."""
        return (self.last if measured < self.least else self.end) - time.monotonic()


ALWAYS = Hours()
