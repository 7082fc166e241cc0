"""Known costs of the students of trials: remembered from the survey, or measured when a trial begins."""

from __future__ import annotations

from torch import nn

from autodistill.records import Params, SurveyRow, Task
from autodistill.training import latency, lease
from autodistill.training.cost_memory import LATENCY, CostMemory, cache_folder
from autodistill.training.costs import cost_metrics, known_costs
from autodistill.training.datasets import ImageData
from autodistill.training.latency_sources import is_elsewhere, latency_elsewhere


class StudentCosts:
    """Costs that the task asks for: counted ones, and latency where it is an objective or constrained.

    Args:
        task: its metrics and latency target.
        data: image size, channels and classes.
        memory: what is known already; by default the user's own.
    """

    def __init__(self, task: Task, data: ImageData, memory: CostMemory | None = None) -> None:
        self._target = task.latency
        self._memory = memory if memory is not None else CostMemory(cache_folder())
        self._shape = {"image_size": data.image_size, "channels": data.channels}
        self._classes = len(data.classes)
        self._counted = tuple(name for name in task.metrics if name in cost_metrics) or ("params",)
        self._timed = LATENCY in task.metrics

    def of(self, student: Params, model: nn.Module) -> SurveyRow:
        """Metric to value; marked as noisy, and not remembered, where a latency did not settle.

        Args:
            student: what identifies the architecture.
            model: the network built from it; it is not changed.

        Raises:
            InfeasibleError: it fails on these images.
        """
        key = self._memory.key(student, self._shape, self._classes)
        known = self._memory.get(key, self._counted, self._target if self._timed else None)
        if known is not None:
            return SurveyRow(student, known)
        row = self._measured(student, model)
        self._memory.put(key, row.settled, self._target)
        self._memory.save()
        return row

    def _measured(self, student: Params, model: nn.Module) -> SurveyRow:
        costs, noisy = known_costs(model, **self._shape, metrics=self._counted), False
        if self._timed and is_elsewhere(self._target):
            costs[LATENCY] = latency_elsewhere(student, model, self._target, **self._shape)
        elif self._timed:
            with lease.quiet() as alone:  # other workers pause between two batches for as long as this takes
                found = latency.measure(model, self._target, **self._shape)
            costs[LATENCY], noisy = found.p50_ms, found.noisy or not alone
        return SurveyRow(student, costs, noisy=noisy)
