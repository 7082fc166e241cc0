"""The part of a report about the growth of the front: a summary, the steps at which it grew, and data of its plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autodistill.core.records import State
from autodistill.core.wording import counted, why_empty
from autodistill.delivery.report.tables import Table

if TYPE_CHECKING:
    from autodistill.search.analysis.trajectory import TrajectoryStep
    from autodistill.search.results.front import Front
    from autodistill.search.study.study import Study

_MOST_STEPS = 40


def growth_part(study: Study, front: Front) -> dict[str, Any]:
    """Return summary and table of the growth, and ``steps`` for the plots."""
    from autodistill.search.analysis.trajectory import trajectory

    steps = trajectory(front)
    if not steps:
        none = why_empty(study.trials(), study.constraints)
        why = none if not front.trials else "this study has no record of times"
        return {"growth": None, "no_growth": f"Not drawn: {why}.", "growth_words": "", "steps": []}
    last = steps[-1]
    half = next(step for step in steps if step.hypervolume_share >= 0.5 * last.hypervolume_share)
    spent = f"{counted(round(last.epochs), 'epoch')} in {counted(round(last.trials), 'trial')}"
    words = (
        f"The front reached {last.hypervolume_share:.4f} of the reference box with {spent}, {last.finished:,} of them "
        f"trained to the end; half of that was reached after {half.finished:,}."
    )
    outside = sum(t.state is State.COMPLETE for t in study.trials()) - last.finished
    words += f" {outside:,} more violated a bound." if outside > 0 else ""
    return {"growth": _steps_table(steps), "no_growth": "", "growth_words": words, "steps": steps}


def _steps_table(steps: Sequence[TrajectoryStep]) -> Table:
    grew = [
        s
        for s, before in zip(steps, [None, *steps], strict=False)
        if before is None or s.hypervolume_share > before.hypervolume_share
    ]
    step = max(1, -(-len(grew) // _MOST_STEPS))
    rows = [
        (str(s.number), f"{s.seconds:,.0f}", f"{s.epochs:,.0f}", f"{s.finished:,}", f"{s.hypervolume_share:.4f}")
        for s in grew[::step]
    ]
    columns = ("trial", "seconds", "epochs", "trained to the end", "hypervolume share")
    return Table(columns, tuple(rows), columns[1:], f"One step in {step} is listed." if step > 1 else "")
