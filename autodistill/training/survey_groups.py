"""The work of a survey: builds and counts a few students, and measures their latencies in one interleaved group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autodistill.errors import AutodistillError, InfeasibleError
from autodistill.records import LatencyTarget, Params, SurveyRow
from autodistill.training import lease, students
from autodistill.training.cost_memory import FEATURES, LATENCY, CostMemory
from autodistill.training.costs import cost_metrics, known_costs
from autodistill.training.latency import measure_runs
from autodistill.training.latency_sources import is_elsewhere, latency_elsewhere
from autodistill.training.runtimes import Run, prepare, threads
from autodistill.training.yardstick import steady


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

    def measure(self, group: Sequence[Params]) -> list[SurveyRow]:
        """One row per student, in their order; what was found out is put into the memory."""
        found: list[SurveyRow] = []
        runs: list[tuple[int, Run]] = []
        for student in group:
            try:
                costs, run = self._count(student)
            except InfeasibleError as error:
                found.append(SurveyRow(student, error=str(error)))
                continue
            except AutodistillError:
                raise
            except Exception as error:  # a network that builds and cannot run is as infeasible as one that does not
                found.append(SurveyRow(student, error=f"{type(error).__name__}: {error}"))
                continue
            if run is not None:
                runs.append((len(found), run))
            found.append(SurveyRow(student, costs))
        self._time(found, runs)
        return [self._remembered(row) for row in found]

    def _count(self, student: Params) -> tuple[dict[str, float], Run | None]:
        """Counted costs (latency too, where it comes from elsewhere), and what is to be timed."""
        side, channels = self._shape["image_size"], self._shape["channels"]
        model = students.build(student, image_size=side, channels=channels, num_classes=self._classes)
        costs = known_costs(model, **self._shape, metrics=self._counted)
        if not self._timed:
            return costs, None
        if self._elsewhere:
            costs[LATENCY] = latency_elsewhere(student, model, self._target, **self._shape)
            return costs, None
        return costs, prepare(model, self._target, **self._shape)

    def _time(self, rows: list[SurveyRow], runs: list[tuple[int, Run]]) -> None:
        """Fill in latency, and mark the rows whose figure did not settle."""
        if not runs:
            return
        speed = {} if self._target.device == "cpu" else {"speed": steady}
        with lease.quiet() as alone, threads(self._target.threads):
            for (index, _), found in zip(runs, measure_runs([run for _, run in runs], **speed), strict=True):
                row = rows[index]
                costs = {**row.costs, LATENCY: found.p50_ms}
                rows[index] = SurveyRow(row.student, costs, noisy=found.noisy or not alone)

    def _remembered(self, row: SurveyRow) -> SurveyRow:
        """The row with what was asked for alone; a latency that did not settle is measured again another time."""
        if row.error:
            return row
        self._memory.put(self._memory.key(row.student, self._shape, self._classes), row.settled, self._target)
        return SurveyRow(row.student, {name: row.costs[name] for name in self._metrics}, noisy=row.noisy)
