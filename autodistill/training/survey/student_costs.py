"""Known costs of the students of trials: remembered from the survey, or measured when a trial begins."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from autodistill.core.errors import InterruptedTrialError
from autodistill.core.records import LatencyTarget, Params, SurveyRow, Task
from autodistill.training.costs import latency_protocol as latency
from autodistill.training.costs.cost_memory import LATENCY, CostMemory, cache_folder
from autodistill.training.costs.counts import cost_metrics, known_costs
from autodistill.training.costs.file_latency import file_run, timed
from autodistill.training.costs.latency_targets import is_elsewhere, latency_elsewhere, latency_of_file
from autodistill.training.data.datasets import ImageData
from autodistill.training.runtime import measurement_lock


class StudentCosts:
    """Costs that the task asks for: counted ones, and latency where it is an objective or constrained.

    Args:
        task: its metrics and latency target.
        data: image size, channels and classes.
        memory: what is known already; by default the user's own.
        waiting: what a trial does while others measure or step aside.
    """

    def __init__(
        self,
        task: Task,
        data: ImageData,
        memory: CostMemory | None = None,
        *,
        waiting: measurement_lock.Waiting = measurement_lock.UNWATCHED,
    ) -> None:
        self._waiting = waiting
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
            InterruptedTrialError: asked to stop while it waited for its turn to measure.
        """
        key = self._memory.key(student, self._shape, self._classes)
        known = self._all_known(key)
        return SurveyRow(student, known) if known is not None else self._measured(key, student, model)

    def of_form(self, student: Params, form: str, file: Path) -> float | None:
        """Latency of another form of a student, milliseconds: measured once per architecture, as weights do not matter.

        Timed for every trial, forms of one architecture would differ by noise, and each stay on the front for it.

        Args:
            student: what identifies the architecture.
            form: its name, which is its precision.
            file: the form as an ONNX file.

        Returns:
            ``None`` for a target that is a table, which knows nothing of forms.

        Raises:
            UserCodeError: the target's command fails.
            InterruptedTrialError: asked to stop while it waited for its turn to measure.
        """
        if self._target.table is not None:
            return None
        target = replace(self._target, precision=form)
        key = self._memory.key(student, self._shape, self._classes)
        known = self._known(key, (), target)
        if known is not None:
            return known[LATENCY]
        if target.command is not None:
            return self._remember(key, target, latency_of_file(target, file))
        run = file_run(file, target)
        with self._quiet("cpu") as alone:
            known = self._known(key, (), target)  # another worker may have measured it while this one waited
            if known is not None:
                return known[LATENCY]
            found = timed([run], target)[0]
            if found.noisy or not alone:
                return found.p50_ms
            return self._remember(key, target, found.p50_ms)

    @contextlib.contextmanager
    def _quiet(self, device: str) -> Iterator[bool]:
        with measurement_lock.exclusive(device, waiting=self._waiting) as alone:
            if not alone and self._waiting.should_stop():
                raise InterruptedTrialError("the trial was stopped before the latency of its student was measured.")
            yield alone

    def _all_known(self, key: str) -> dict[str, float] | None:
        return self._known(key, self._counted, self._target if self._timed else None)

    def _known(self, key: str, counted: Sequence[str], target: LatencyTarget | None) -> dict[str, float] | None:
        """What is remembered, by this worker or by another one since; two would differ by noise."""
        known = self._memory.get(key, counted, target)
        if known is None:
            self._memory.refresh()
            known = self._memory.get(key, counted, target)
        return known

    def _remember(self, key: str, target: LatencyTarget, milliseconds: float) -> float:
        self._memory.put(key, {LATENCY: milliseconds}, target)
        self._memory.save()
        return milliseconds

    def _measured(self, key: str, student: Params, model: nn.Module) -> SurveyRow:
        costs = known_costs(model, **self._shape, metrics=self._counted)
        if self._timed and is_elsewhere(self._target):
            costs[LATENCY] = latency_elsewhere(student, model, self._target, **self._shape)
        elif self._timed:
            # other workers pause between two batches for as long as this takes
            with self._quiet(self._target.device) as alone:
                known = self._all_known(key)  # another worker may have measured it while this one waited
                if known is not None:
                    return SurveyRow(student, known)
                found = latency.measure_latency(model, self._target, **self._shape)
                costs[LATENCY] = found.p50_ms
                return self._kept(key, SurveyRow(student, costs, noisy=found.noisy or not alone))
        return self._kept(key, SurveyRow(student, costs))

    def _kept(self, key: str, row: SurveyRow) -> SurveyRow:
        self._memory.put(key, row.settled, self._target)
        self._memory.save()
        return row
