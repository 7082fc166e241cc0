"""Known costs of students, measured once per architecture and shared by the workers and resumes of a study."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from torch import nn

from autodistill.records import Params, Task, stable_key
from autodistill.training import latency, lease
from autodistill.training.costs import cost_metrics, known_costs
from autodistill.training.datasets import ImageData

LATENCY = "latency_ms"


class StudentCosts:
    """Costs that the task asks for: counted ones, and latency where it is an objective or constrained.

    Args:
        task: its metrics and latency target.
        data: image size, channels and classes.
        folder: where they are remembered.
    """

    def __init__(self, task: Task, data: ImageData, folder: Path) -> None:
        self._target, self._folder = task.latency, folder
        self._shape = {"image_size": data.image_size, "channels": data.channels}
        self._classes = len(data.classes)
        self._counted = tuple(name for name in task.metrics if name in cost_metrics) or ("params",)
        self._timed = LATENCY in task.metrics

    def of(self, student: Params, model: nn.Module) -> dict[str, float]:
        """Metric to value.

        Args:
            student: what identifies the architecture.
            model: the network built from it; it is not changed.

        Raises:
            InfeasibleError: it fails on these images.
        """
        path = self._folder / f"{self._key(student)}.json"
        try:
            known: dict[str, float] = json.loads(path.read_bytes())
            return known
        except (OSError, ValueError):
            measured = self._measure(model)
        _write(path, measured)
        return measured

    def _measure(self, model: nn.Module) -> dict[str, float]:
        costs = known_costs(model, **self._shape, metrics=self._counted)
        if self._timed:
            with lease.quiet():
                costs[LATENCY] = latency.measure(model, self._target, **self._shape).p50_ms
        return costs

    def _key(self, student: Params) -> str:
        target = asdict(self._target) if self._timed else None
        return stable_key([dict(student), self._shape, self._classes, self._counted, target])


def _write(path: Path, costs: dict[str, float]) -> None:
    """Under another name first: a second worker must not read half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file, scratch = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        json.dump(costs, stream)
    os.replace(scratch, path)
