"""The survey: known costs of a pool of students before any of them is trained.

Params, MACs and the like are counted; latency is measured in groups, interleaved, while nothing trains on the machine,
and remembered for later studies by architecture, target and machine. What is remembered is looked up without loading
torch: the work itself is in ``survey_groups``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autodistill.records import LatencyTarget, Params, SurveyRow
from autodistill.training.cost_memory import LATENCY, CostMemory

GROUP = 8  # students measured in one interleaved group: few enough for their weights to share the caches fairly

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
        should_stop: asked between groups.

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
    missing = [index for index in range(len(pool)) if index not in rows]
    if rows:
        progress(len(rows), len(pool))
    if missing:
        from autodistill.training.survey_groups import Surveyor

        surveyor = Surveyor(shape, num_classes, counted, target, timed=timed, memory=memory)
        for start in range(0, len(missing), GROUP):
            if should_stop():
                break
            group = missing[start : start + GROUP]
            rows.update(zip(group, surveyor.measure([pool[index] for index in group]), strict=True))
            progress(len(rows), len(pool))
        memory.save()
    return [rows[index] for index in sorted(rows)]
