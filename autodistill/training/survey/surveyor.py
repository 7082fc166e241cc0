"""Counts, orders and measures the students of a survey."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from autodistill.core.errors import AutodistillError, InfeasibleError
from autodistill.core.records import LATENCY, LatencyTarget, Params, SurveyRow
from autodistill.training.costs.clocks import clock_of
from autodistill.training.costs.cost_memory import FEATURES, CostMemory
from autodistill.training.costs.counts import cost_metrics, known_costs
from autodistill.training.costs.latency_protocol import measure_runs
from autodistill.training.costs.latency_targets import is_elsewhere, latency_elsewhere
from autodistill.training.costs.machine_speed import slowness
from autodistill.training.deployed.runtimes import Run, prepare_run, threads
from autodistill.training.runtime import measurement_lock
from autodistill.training.students import build as students
from autodistill.training.students.resolution import own_shape
from autodistill.training.survey.survey_order import in_turn, spread
from autodistill.training.survey.time_limit import COUNT_SHARE, FIRST_GROUP, Hours, Progress

LIMIT_SECONDS = 2.0
"""Limit of ``measure_runs``, shorter than its default: noisy latencies are measured again when a trial begins."""


class Surveyor:
    """Counts and measures students.

    Args:
        shape: ``image_size`` and ``channels`` of the students' input.
        num_classes: number of the students' logits.
        counted: metrics to count.
        target: latency target.
        timed: whether latency is needed.
        memory: storage of the costs; with latencies it also gets the counted costs that predict them.

    Raises:
        UnknownNameError: A metric does not exist.
        UsageError: The latency target is invalid.
    """

    def __init__(
        self,
        shape: Mapping[str, int],
        num_classes: int,
        counted: Sequence[str],
        target: LatencyTarget,
        *,
        timed: bool,
        memory: CostMemory,
    ) -> None:
        for name in counted:
            cost_metrics.get(name)
        self._elsewhere = is_elsewhere(target)
        self._shape, self._classes, self._target, self._memory = dict(shape), num_classes, target, memory
        self._metrics = (*counted, LATENCY) if timed else tuple(counted)
        self._counted = tuple(dict.fromkeys([*counted, *FEATURES])) if timed else tuple(counted)
        self._timed = timed

    def order(
        self,
        pool: Sequence[Params],
        rows: dict[int, SurveyRow],
        *,
        hours: Hours,
        counting: Progress,
        should_stop: Callable[[], bool],
    ) -> list[int]:
        """Return the positions of the students to measure, in order.

        If latency is measured on this machine, the order depends on counted costs, so students are counted first, as
        many as a part of the time allows. The others come last.

        Args:
            pool: all students.
            rows: known rows by position; rows of students that cannot be built are added.
            hours: time limit of the survey.
            counting: called as ``counting(done, total)``.
            should_stop: called between students; true ends the counting.
        """
        turns = in_turn([str(student.get("family", "")) for student in pool])
        missing = [index for index in turns if index not in rows]
        if not self._timed or self._elsewhere:
            return missing
        features = {index: found for index in rows if (found := self._remembered_counts(pool[index])) is not None}
        before, now = len(features), time.monotonic()
        end, last = now + COUNT_SHARE * hours.left(hours.least), now + COUNT_SHARE * hours.left(0)
        for done, index in enumerate(missing, 1):
            needed = FIRST_GROUP if time.monotonic() > last else max(hours.least, FIRST_GROUP)
            if should_stop() or (time.monotonic() > end and len(features) >= needed):
                break
            try:
                features[index] = self._counts(pool[index])
            except Exception as error:
                rows[index] = _failed(pool[index], error)
            counting(done, len(missing))
        places = list(features)
        families = [str(pool[index].get("family", "")) for index in places]
        order = spread(families, list(features.values()), before=range(before))
        rest = [index for index in missing if index not in features and index not in rows]
        return [*(places[place] for place in order), *rest]

    def measure(
        self,
        group: Sequence[Params],
        *,
        waits: Callable[[str, float], None] = measurement_lock.UNWATCHED.on_wait,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[SurveyRow | None]:
        """Count and measure a group of students, and put their costs into the memory.

        Args:
            group: students, whose latencies are measured in interleaved rounds.
            waits: called while this process waits for another one.
            should_stop: called while this process waits; true ends the wait.

        Returns:
            One row per student, in order; ``None`` for students whose latency was not measured because of
            ``should_stop``.
        """
        found: list[SurveyRow | None] = []
        runs: list[tuple[int, Run]] = []
        for student in group:
            try:
                costs, run = self._count(student)
            except Exception as error:
                found.append(_failed(student, error))
                continue
            if run is not None:
                runs.append((len(found), run))
            found.append(SurveyRow(student, costs))
        self._time(found, runs, measurement_lock.Waiting(should_stop, waits))
        return [None if row is None else self._remembered(row) for row in found]

    def _count(self, student: Params) -> tuple[dict[str, float], Run | None]:
        """Return the counted costs of a student, and its run if latency is measured on this machine.

        Latencies from a table or command are included in the costs.
        """
        known = self._remembered_counts(student)
        if known is not None and not self._timed:
            return known, None
        model = self._built(student)
        costs = known or known_costs(model, **own_shape(student, self._shape), metrics=self._counted)
        if not self._timed:
            return costs, None
        if self._elsewhere:
            costs[LATENCY] = latency_elsewhere(student, model, self._target, **own_shape(student, self._shape))
            return costs, None
        return costs, prepare_run(model, self._target, **own_shape(student, self._shape))

    def _counts(self, student: Params) -> dict[str, float]:
        """Return and store the counted costs; the study needs them again, whether latency is measured or predicted."""
        known = self._remembered_counts(student)
        if known is None:
            with threads(1):  # more threads would not speed up so little work
                known = known_costs(self._built(student), **own_shape(student, self._shape), metrics=self._counted)
            self._memory.put(self._memory.key(student, self._shape, self._classes), known, self._target)
        return known

    def _remembered_counts(self, student: Params) -> dict[str, float] | None:
        return self._memory.get(self._memory.key(student, self._shape, self._classes), self._counted, None)

    def _built(self, student: Params) -> nn.Module:
        side, channels = self._shape["image_size"], self._shape["channels"]
        return students.build_student(student, image_size=side, channels=channels, num_classes=self._classes)

    def _time(
        self, rows: list[SurveyRow | None], runs: list[tuple[int, Run]], waiting: measurement_lock.Waiting
    ) -> None:
        """Add latencies to ``rows`` and mark noisy ones; replace the rows by ``None`` if ``should_stop`` is true."""
        if not runs:
            return
        clock = clock_of(self._target)
        speed = slowness(self._target.device, clock)
        with measurement_lock.exclusive(self._target.device, waiting=waiting) as alone, threads(self._target.threads):
            if not alone and waiting.should_stop():
                for index, _ in runs:
                    rows[index] = None
                return
            measured = measure_runs([run for _, run in runs], clock=clock, speed=speed, limit=LIMIT_SECONDS)
            for (index, _), found in zip(runs, measured, strict=True):
                row = rows[index]
                assert row is not None
                costs = {**row.costs, LATENCY: found.p50_ms}
                rows[index] = SurveyRow(row.student, costs, noisy=found.noisy or not alone)

    def _remembered(self, row: SurveyRow) -> SurveyRow:
        """Store the costs of a row, except noisy latencies, and return the row with the requested metrics only."""
        if row.error:
            return row
        self._memory.put(self._memory.key(row.student, self._shape, self._classes), row.settled, self._target)
        return SurveyRow(row.student, {name: row.costs[name] for name in self._metrics}, noisy=row.noisy)


def _failed(student: Params, error: Exception) -> SurveyRow:
    """Return the row of a student that cannot be built or run.

    Raises:
        AutodistillError: The error is not a property of the student, e.g. a failing latency command.
    """
    if isinstance(error, InfeasibleError):
        return SurveyRow(student, error=str(error))
    if isinstance(error, AutodistillError):
        raise error
    return SurveyRow(student, error=f"{type(error).__name__}: {error}")
