"""Progress of a teacher's training in words, with an estimate of the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from autodistill.core.budget import format_seconds

_ENOUGH = 0.02
"""Share of the training that must be done before the time left is estimated."""


class TeachingProgress:
    """Progress of one training of a teacher.

    Args:
        clock: Monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: tuple[float, float] | None = None  # seconds and epochs at the first call; epochs > 0 if resumed

    def words(self, epoch: float, epochs: float, metrics: Mapping[str, float]) -> str:
        """Return the progress as one line.

        Args:
            epoch: Epochs done.
            epochs: Epochs of the whole training.
            metrics: Validation metrics, at the end of the training.
        """
        now = self._clock()
        self._began = self._began or (now, epoch)
        began, first = self._began
        line = f"epoch {epoch:.1f} of {epochs:g}"
        if "micro_f1" in metrics:  # several labels per image
            return f"{line}, validation mAP {metrics['average_precision']:.3f}"
        if "accuracy" in metrics:
            return f"{line}, validation accuracy {metrics['accuracy']:.3f}"
        done = epoch - first
        if done < _ENOUGH * epochs or epoch >= epochs:
            return line
        left = max(1, round((now - began) / done * (epochs - epoch)))
        return f"{line}, about {format_seconds(left)} left"
