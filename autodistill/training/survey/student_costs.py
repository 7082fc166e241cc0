"""Known costs of a trial's student: stored by the survey, or measured when the trial begins."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from autodistill.core.errors import InterruptedTrialError
from autodistill.core.records import LATENCY, LatencyTarget, Params, SurveyRow, Task
from autodistill.training.costs import latency_protocol as latency
from autodistill.training.costs.cost_memory import CostMemory, cache_folder
from autodistill.training.costs.counts import cost_metrics, known_costs
from autodistill.training.costs.file_latency import file_run, timed
from autodistill.training.costs.latency_targets import is_elsewhere, latency_elsewhere, latency_of_file
from autodistill.training.data.datasets import ImageData
from autodistill.training.runtime import measurement_lock
from autodistill.training.students.resolution import own_shape


class StudentCosts:
    """Known costs that a task needs: counted ones, and latency if it is an objective or constrained.

    Args:
        task: sets the metrics and the latency target.
        data: sets image size, channels and number of classes.
        memory: stored costs; by default those of the user's cache folder.
        waiting: callbacks while a trial waits for the measurement lock.
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
        """Return the costs of a student, stored or measured now.

        A latency that is noisy is marked as such and not stored.

        Args:
            student: family and parameters, which identify the architecture.
            model: the network built from them; it is not changed.

        Raises:
            InfeasibleError: The network fails on these images.
            InterruptedTrialError: The trial was stopped while it waited for the measurement lock.
        """
        key = self._memory.key(student, self._shape, self._classes)
        known = self._all_known(key)
        return SurveyRow(student, known) if known is not None else self._measured(key, student, model)

    def of_form(self, student: Params, form: str, file: Path) -> tuple[float, bool] | None:
        """Return the latency of another form of a student, e.g. int8, stored or measured now.

        It is measured once per architecture, because it does not depend on the weights. If it were measured in every
        trial, equal architectures would differ by noise, and all of them could stay on the front.

        Args:
            student: family and parameters, which identify the architecture.
            form: name of the form, which is its precision.
            file: ONNX file of the form.

        Returns:
            Milliseconds per batch, and whether they were too noisy to settle and are not stored; ``None`` if the target
            is a table, which has no latencies of forms.

        Raises:
            UserCodeError: The target's command fails.
            InterruptedTrialError: The trial was stopped while it waited for the measurement lock.
        """
        if self._target.table is not None:
            return None
        target = replace(self._target, precision=form)
        key = self._memory.key(student, self._shape, self._classes)
        known = self._known(key, (), target)
        if known is not None:
            return known[LATENCY], False
        if target.command is not None:
            return self._remember(key, target, latency_of_file(target, file)), False
        run = file_run(file, target)
        with self._quiet("cpu") as alone:
            known = self._known(key, (), target)  # another worker may have measured it while this one waited
            if known is not None:
                return known[LATENCY], False
            found = timed([run], target)[0]
            if found.noisy or not alone:
                return found.p50_ms, True
            return self._remember(key, target, found.p50_ms), False

    @contextlib.contextmanager
    def _quiet(self, device: str) -> Iterator[bool]:
        """Reserve a device for a measurement; see ``measurement_lock.exclusive``.

        Raises:
            InterruptedTrialError: The trial was stopped during the wait.
        """
        with measurement_lock.exclusive(device, waiting=self._waiting) as alone:
            if not alone and self._waiting.should_stop():
                raise InterruptedTrialError("the trial was stopped before the latency of its student was measured.")
            yield alone

    def _all_known(self, key: str) -> dict[str, float] | None:
        return self._known(key, self._counted, self._target if self._timed else None)

    def _known(self, key: str, counted: Sequence[str], target: LatencyTarget | None) -> dict[str, float] | None:
        """Return stored costs, including those that other workers stored since, or ``None``.

        Two measurements of one architecture would differ by noise, so an existing one is always used.
        """
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
        """Count and measure the costs of a student, and store them."""
        shape = own_shape(student, self._shape)
        costs = known_costs(model, **shape, metrics=self._counted)
        if self._timed and is_elsewhere(self._target):
            costs[LATENCY] = latency_elsewhere(student, model, self._target, **shape)
        elif self._timed:
            # Other workers pause between two batches until the measurement is finished.
            with self._quiet(self._target.device) as alone:
                known = self._all_known(key)  # another worker may have measured it while this one waited
                if known is not None:
                    return SurveyRow(student, known)
                found = latency.measure_latency(model, self._target, **shape)
                costs[LATENCY] = found.p50_ms
                return self._kept(key, SurveyRow(student, costs, noisy=found.noisy or not alone))
        return self._kept(key, SurveyRow(student, costs))

    def _kept(self, key: str, row: SurveyRow) -> SurveyRow:
        self._memory.put(key, row.settled, self._target)
        self._memory.save()
        return row
