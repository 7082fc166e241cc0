"""The survey: known costs of a pool of students before any of them is trained.

Parameters, MACs and similar costs are counted. Latency is measured in interleaved groups while nothing trains on the
machine, and stored for later studies by architecture, target and machine. Stored costs are read without loading torch;
``surveyor.py`` does the counting and measuring.

Before latency is measured, students of all families are counted in turn, for a part of the time if the time is limited.
They are then measured in an order that spreads over all of them, so that a survey that ends early includes the cheapest
student, the most expensive one and every family.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from autodistill.core.records import LATENCY, LatencyTarget, Params, SurveyRow
from autodistill.training.costs.cost_memory import CostMemory
from autodistill.training.survey.time_limit import ALWAYS, FIRST_GROUP, Hours, Progress

GROUP = 8  # students in one interleaved group: few enough that their weights share the caches fairly
HOLD_SECONDS = 8.0
"""Approximate duration of measuring a group, for which trainings of other processes pause."""


def _ignore_progress(done: int, total: int) -> None:
    """Ignore progress."""


def _ignore_wait(what: str, seconds: float) -> None:
    """Ignore reports of a wait."""


def survey(
    pool: Sequence[Params],
    *,
    image_size: int,
    channels: int,
    num_classes: int,
    metrics: Sequence[str],
    target: LatencyTarget,
    memory: CostMemory | None = None,
    progress: Progress = _ignore_progress,
    should_stop: Callable[[], bool] = lambda: False,
    hours: Hours = ALWAYS,
    counting: Progress = _ignore_progress,
    waits: Callable[[str, float], None] = _ignore_wait,
) -> list[SurveyRow]:
    """Survey the students of ``pool``: look up, count and measure their known costs.

    Args:
        pool: students to survey.
        image_size: pixels per side of the students' input.
        channels: channels of the students' input.
        num_classes: number of the students' logits.
        metrics: counted metrics, and ``latency_ms`` if needed.
        target: latency target.
        memory: stored costs of earlier surveys on this machine; new ones are added.
        progress: called as ``progress(done, total)``.
        should_stop: called between groups and while the survey waits for other processes; true ends the survey.
        hours: time limit; one group is measured in any case.
        counting: called as ``counting(done, total)`` while students are counted before the measurements.
        waits: called while the survey waits for another process, see ``measurement_lock.Waiting.on_wait``.

    Returns:
        One row per student, in the order of ``pool``. Rows are missing if the survey was stopped or its time was up.

    Raises:
        UnknownNameError: A metric or runtime does not exist.
    """
    memory = memory if memory is not None else CostMemory(None)
    shape = {"image_size": image_size, "channels": channels}
    counted = [name for name in metrics if name != LATENCY]
    timed = LATENCY in metrics
    rows: dict[int, SurveyRow] = {}
    for index, student in enumerate(pool):
        known = memory.get(memory.key(student, shape, num_classes), counted, target if timed else None)
        if known is not None:
            rows[index] = SurveyRow(student, known)
    if rows:
        progress(len(rows), len(pool))
    if len(rows) < len(pool):
        from autodistill.training.survey.surveyor import Surveyor

        surveyor = Surveyor(shape, num_classes, counted, target, timed=timed, memory=memory)
        order = surveyor.order(pool, rows, hours=hours, counting=counting, should_stop=should_stop)
        seconds_each = 0.0
        while order and not should_stop():
            measured = sum(not row.error for row in rows.values())
            size = _group_size(seconds_each, hours.left(measured), first=not measured)
            if not size:
                break
            group, order, begun = order[:size], order[size:], time.monotonic()
            found = surveyor.measure([pool[index] for index in group], waits=waits, should_stop=should_stop)
            rows.update((index, row) for index, row in zip(group, found, strict=True) if row is not None)
            seconds_each = (time.monotonic() - begun) / len(group)
            memory.save()
            progress(len(rows), len(pool))
        memory.save()
    return [rows[index] for index in sorted(rows)]


def _group_size(seconds_each: float, left: float, *, first: bool) -> int:
    """Return the number of students to measure next; 0 if the time is up.

    Args:
        seconds_each: seconds per student in the last group; 0 before the first group.
        left: seconds left for the survey.
        first: whether no student has costs yet.
    """
    if left <= seconds_each and not first:
        return 0
    if not seconds_each:
        return FIRST_GROUP
    most = int(max(left, 0.0) / seconds_each) if left < math.inf else GROUP
    return max(1, min(GROUP, int(HOLD_SECONDS / seconds_each), most))
