"""The survey: known costs of a pool of students before any of them is trained.

Params, MACs and the like are counted; latency is measured in groups, interleaved, while nothing trains on the machine,
and remembered for later studies by architecture, target and machine. What is remembered is looked up without loading
torch: the work itself is in ``survey_groups``.

Where the time is limited, first as many students as part of it allows are counted, one family after the other, and
those are then measured in an order that is spread over all of them, so that a survey that ends early has seen the
cheapest, the dearest and every family.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from autodistill.core.records import LatencyTarget, Params, SurveyRow
from autodistill.training.costs.cost_memory import LATENCY, CostMemory
from autodistill.training.survey.time_limit import ALWAYS, FIRST_GROUP, Hours, Progress

GROUP = 8  # students measured in one interleaved group: few enough for their weights to share the caches fairly
HOLD_SECONDS = 8.0
"""About how long a group is measured, which is how long trainers of other processes stand still."""


def _unwatched(done: int, total: int) -> None:
    """Progress that nobody watches."""


def _unheard(what: str, seconds: float) -> None:
    """Waits that nobody watches."""


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
    hours: Hours = ALWAYS,
    counting: Progress = _unwatched,
    waits: Callable[[str, float], None] = _unheard,
) -> list[SurveyRow]:
    """Known costs of the students of ``pool``, in its order; fewer rows when asked to stop, or the time is up.

    Args:
        pool: students to survey.
        image_size: pixels per side of their input.
        channels: channels of their input.
        num_classes: logits they give.
        metrics: counted metrics, and ``latency_ms``.
        target: where latency is measured.
        memory: costs of earlier surveys on this machine; new ones are added.
        progress: called with (done, total).
        should_stop: asked between groups, and while other processes are waited for.
        hours: when it ends; one group is measured in any case.
        counting: called with (done, total) while students are counted before any is measured.
        waits: told for which other process it waits (see ``lease.Waiting``).

    Raises:
        UnknownNameError: a metric or runtime that does not exist.
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
        pace = 0.0
        while order and not should_stop():
            measured = sum(not row.error for row in rows.values())
            size = _group_size(pace, hours.left(measured), first=not measured)
            if not size:
                break
            group, order, begun = order[:size], order[size:], time.monotonic()
            found = surveyor.measure([pool[index] for index in group], waits=waits, should_stop=should_stop)
            rows.update((index, row) for index, row in zip(group, found, strict=True) if row is not None)
            pace = (time.monotonic() - begun) / len(group)
            memory.save()
            progress(len(rows), len(pool))
        memory.save()
    return [rows[index] for index in sorted(rows)]


def _group_size(pace: float, left: float, *, first: bool) -> int:
    """How many students are measured next; 0 when the time is up.

    Args:
        pace: seconds of one student in the last group; 0 before it.
        left: seconds.
        first: nothing is known of any student yet.
    """
    if left <= pace and not first:
        return 0
    if not pace:
        return FIRST_GROUP
    return max(1, min(GROUP, int(HOLD_SECONDS / pace), int(max(left, 0.0) / pace) if left < math.inf else GROUP))
