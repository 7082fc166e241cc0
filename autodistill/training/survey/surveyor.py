"""The work of a survey: counts students and puts them in order, and measures a few of them in one interleaved group."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from autodistill.core.errors import AutodistillError, InfeasibleError
from autodistill.core.records import LatencyTarget, Params, SurveyRow
from autodistill.training.costs.clocks import clock_of
from autodistill.training.costs.cost_memory import FEATURES, LATENCY, CostMemory
from autodistill.training.costs.counts import cost_metrics, known_costs
from autodistill.training.costs.latency_protocol import measure_runs
from autodistill.training.costs.latency_targets import is_elsewhere, latency_elsewhere
from autodistill.training.costs.machine_speed import slowness
from autodistill.training.deployed.runtimes import Run, prepare_run, threads
from autodistill.training.runtime import measurement_lock
from autodistill.training.students import build as students
from autodistill.training.survey.survey_order import in_turn, spread
from autodistill.training.survey.time_limit import COUNT_SHARE, FIRST_GROUP, Hours, Progress

LIMIT_SECONDS = 2.0
"""The same as in ``latency``: a student that did not settle is measured again when its trial begins."""


class Surveyor:
    """Finds out what students cost.

    Args:
        shape: ``image_size`` and ``channels`` of their input.
        num_classes: logits they give.
        counted: metrics that are counted.
        target: where latency is measured.
        timed: whether latency is asked for.
        memory: takes what was found out, and with latencies also what predicts them.

    Raises:
        UnknownNameError: a metric that does not exist.
        UsageError: a latency target that cannot be.
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
        """Positions of the students that are to be measured, in the order in which that is to be done.

        Where latency is measured here, they are counted for it, as many as part of the time allows; the others come
        last.

        Args:
            pool: all students.
            rows: those that are known already, by position; students that cannot be built are added.
            hours: when the survey ends.
            counting: called with (done, total).
            should_stop: asked between students.
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
        """One row per student, in their order; what was found out is put into the memory.

        Args:
            group: students.
            waits: told for which other process it waits.
            should_stop: asked meanwhile; students whose latency was not measured for it have no row.
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
        """Counted costs (latency too, where it comes from elsewhere), and what is to be timed."""
        known = self._remembered_counts(student)
        if known is not None and not self._timed:
            return known, None
        model = self._built(student)
        costs = known or known_costs(model, **self._shape, metrics=self._counted)
        if not self._timed:
            return costs, None
        if self._elsewhere:
            costs[LATENCY] = latency_elsewhere(student, model, self._target, **self._shape)
            return costs, None
        return costs, prepare_run(model, self._target, **self._shape)

    def _counts(self, student: Params) -> dict[str, float]:
        """Counted costs alone, remembered: the study asks for them again, whether it is measured or predicted."""
        known = self._remembered_counts(student)
        if known is None:
            with threads(1):  # of so little work, more would only wait for each other
                known = known_costs(self._built(student), **self._shape, metrics=self._counted)
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
        """Fill in latency, and mark the rows whose figure did not settle; none is left where it was asked to stop."""
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
        """The row with what was asked for alone; a latency that did not settle is measured again another time."""
        if row.error:
            return row
        self._memory.put(self._memory.key(row.student, self._shape, self._classes), row.settled, self._target)
        return SurveyRow(row.student, {name: row.costs[name] for name in self._metrics}, noisy=row.noisy)


def _failed(student: Params, error: Exception) -> SurveyRow:
    """The row of a student that cannot be built; a network that builds and cannot run is as infeasible.

    Raises:
        AutodistillError: it is the user's error, and no fact about the student.
    """
    if isinstance(error, InfeasibleError):
        return SurveyRow(student, error=str(error))
    if isinstance(error, AutodistillError):
        raise error
    return SurveyRow(student, error=f"{type(error).__name__}: {error}")
