"""What one worker is doing, as a value that engines send and displays show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class WorkerLine:
    """What one worker is doing.

    Attributes:
        number: trial number.
        what: the student in words.
        epoch: epochs done; ``epochs`` of the top rung, 0 where the training has not said.
        metrics: latest metrics of the trial.
        waiting: for what the worker waits; empty while it works.
    """

    number: int
    what: str
    epoch: float
    epochs: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    waiting: str = ""
