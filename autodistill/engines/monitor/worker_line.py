"""State of one worker, sent by engines and shown by displays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class WorkerLine:
    """State of one worker.

    Attributes:
        number: Trial number.
        what: Student in words.
        epoch: Epochs done.
        epochs: Epochs of the top rung; 0 if the training has not reported them.
        metrics: Latest metrics of the trial.
        waiting: What the worker waits for; empty while it works.
    """

    number: int
    what: str
    epoch: float
    epochs: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    waiting: str = ""
