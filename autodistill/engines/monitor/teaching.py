"""What a teacher's training says of itself: how far it is, and about how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from autodistill.core.budget import format_seconds

_ENOUGH = 0.02
"""Share of the training after which its pace is known."""


class TeachingPace:
    """Words for the progress of one training.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: tuple[float, float] | None = None  # seconds and epochs at the first call: a resume goes on later

    def words(self, epoch: float, epochs: float, metrics: Mapping[str, float]) -> str:
        """One line.

        Args:
            epoch: epochs done.
            epochs: epochs of the whole training.
            metrics: what was measured, at the end.
        """
        now = self._clock()
        self._began = self._began or (now, epoch)
        began, first = self._began
        line = f"epoch {epoch:.1f} of {epochs:g}"
        if "accuracy" in metrics:
            return f"{line}, validation accuracy {metrics['accuracy']:.3f}"
        done = epoch - first
        if done < _ENOUGH * epochs or epoch >= epochs:
            return line
        left = max(1, round((now - began) / done * (epochs - epoch)))
        return f"{line}, about {format_seconds(left)} left"
