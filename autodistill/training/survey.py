"""The survey: known costs of a pool of students before any of them is trained.

Params, MACs and the like are counted; latency is measured in groups, interleaved, while nothing trains on the machine,
and remembered for later studies by architecture, target and machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from autodistill.errors import AutodistillError, InfeasibleError
from autodistill.records import LatencyTarget, Params
from autodistill.training import lease, students
from autodistill.training.cost_memory import LATENCY, CostMemory
from autodistill.training.costs import cost_metrics, known_costs
from autodistill.training.latency import measure_runs
from autodistill.training.latency_sources import is_elsewhere, latency_elsewhere
from autodistill.training.runtimes import Run, prepare, threads

GROUP = 8  # students measured in one interleaved group: few enough for their weights to share the caches fairly


@dataclass(frozen=True)
class SurveyRow:
    """What the survey found out about one student.

    Attributes:
        costs: metric to value; empty when it cannot be built.
        error: why it cannot be built; empty when it can.
        noisy: its latency did not settle.
    """

    student: Params
    costs: dict[str, float] = field(default_factory=dict)
    error: str = ""
    noisy: bool = False


Progress = Callable[[int, int], None]


def _unwatched(done: int, total: int) -> None:
    """Progress that nobody watches."""


def survey(
    pool: Sequence[Params],
    *,
    image_size: int,
    channels: int,
    num_classes: int,
    metrics: Sequence[str],
    target: LatencyTarget,
    memory: CostMemory | None = None,
    progress: Progress = _unwatched,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[SurveyRow]:
    """Known costs of every student of ``pool``, in its order; fewer rows when asked to stop.

    Args:
        pool: students to survey.
        image_size: pixels per side of their input.
        channels: channels of their input.
        num_classes: logits they give.
        metrics: counted metrics, and ``latency_ms``.
        target: where latency is measured.
        memory: costs of earlier surveys on this machine; new ones are added.
        progress: called with (done, total).
        should_stop: asked between students.

    Raises:
        UnknownNameError: a metric or runtime that does not exist.
    """
    memory = memory if memory is not None else CostMemory(None)
    shape = {"image_size": image_size, "channels": channels}
    counted = [name for name in metrics if name != LATENCY]
    for name in counted:
        cost_metrics.get(name)
    is_elsewhere(target)
    rows: list[SurveyRow] = []
    for group in _groups(pool):
        if should_stop():
            break
        rows += _survey_group(group, shape, num_classes, counted, LATENCY in metrics, target, memory)
        progress(len(rows), len(pool))
    memory.save()
    return rows


def _groups(pool: Sequence[Params]) -> Iterator[Sequence[Params]]:
    return (pool[i : i + GROUP] for i in range(0, len(pool), GROUP))


def _survey_group(
    group: Sequence[Params],
    shape: dict[str, int],
    num_classes: int,
    counted: Sequence[str],
    timed: bool,
    target: LatencyTarget,
    memory: CostMemory,
) -> list[SurveyRow]:
    rows: list[SurveyRow] = []
    runs: list[tuple[int, Run]] = []
    for student in group:
        key = memory.key(student, shape, num_classes)
        known = memory.get(key, counted, target if timed else None)
        if known is not None:
            rows.append(SurveyRow(student, known))
            continue
        try:
            model = students.build(
                student, image_size=shape["image_size"], channels=shape["channels"], num_classes=num_classes
            )
            costs = known_costs(model, **shape, metrics=counted)
            if timed and is_elsewhere(target):
                costs[LATENCY] = latency_elsewhere(student, model, target, **shape)
            elif timed:
                runs.append((len(rows), prepare(model, target, **shape)))
            rows.append(SurveyRow(student, costs))
        except InfeasibleError as error:
            rows.append(SurveyRow(student, error=str(error)))
        except AutodistillError:
            raise
        except Exception as error:  # a network that builds and cannot run is as infeasible as one that cannot be built
            rows.append(SurveyRow(student, error=f"{type(error).__name__}: {error}"))
    _time(rows, runs, target)
    for row in rows:
        if not row.error:
            settled = {name: value for name, value in row.costs.items() if name != LATENCY or not row.noisy}
            memory.put(memory.key(row.student, shape, num_classes), settled, target)
    return rows


def _time(rows: list[SurveyRow], runs: list[tuple[int, Run]], target: LatencyTarget) -> None:
    """Fill in latency, and mark the rows whose figure did not settle."""
    if not runs:
        return
    with lease.quiet() as alone, threads(target.threads):
        for (index, _), found in zip(runs, measure_runs([run for _, run in runs]), strict=True):
            row = rows[index]
            rows[index] = SurveyRow(row.student, {**row.costs, LATENCY: found.p50_ms}, noisy=found.noisy or not alone)
