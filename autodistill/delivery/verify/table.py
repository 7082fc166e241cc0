"""From the results of single runs to the table: figures over seeds, the verified front, who fell and how surely.

The verified front has the axes of the search. What was trained (``accuracy``, ``loss``, ``agreement``) is the mean over
seeds on the test split. Known costs do not flatter, so they are the search's own, but for those that the exported
files were measured for (``of_files``): the file is what ships, and its runtime may order students as torch does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autodistill.core.records import Objective
from autodistill.delivery.verify.plan import PlannedRow
from autodistill.delivery.verify.statistics import Bools, accuracy_figure, difference, mean_recalls, over_seeds
from autodistill.search.objectives.losses import to_losses
from autodistill.search.objectives.pareto import nondominated_mask
from autodistill.search.results.verified import Difference, Figure, FrontVerdict, VerifiedRow
from autodistill.training.trials.run_result import Result


@dataclass(frozen=True)
class Finished:
    """A member with the runs of it that are finished.

    Attributes:
        member: what was trained.
        results: seed to result, in the order of the seeds.
        planned: runs that were asked for.
        weights: folder of the kept weights, from the study's folder.
        error: why runs are missing, where they failed.
    """

    member: PlannedRow
    results: Mapping[int, Result]
    planned: int
    weights: str = ""
    error: str = ""

    @property
    def right(self) -> dict[int, Bools]:
        """Seed to right answers on the test split."""
        return {seed: result.correct() for seed, result in self.results.items()}


def rows_of(finished: Sequence[Finished]) -> tuple[VerifiedRow, ...]:
    """A row for each, in the same order, without verdicts."""
    twins = {one.member.trial: one for one in finished if one.member.kind == "twin"}
    return tuple(_with_gain(_row(one), one, twins) if one.member.kind == "student" else _row(one) for one in finished)


def table(
    rows: Sequence[VerifiedRow],
    finished: Sequence[Finished],
    objectives: Sequence[Objective],
    of_files: Sequence[str] = (),
) -> tuple[VerifiedRow, ...]:
    """Rows of students (most accurate first), then of their twins, then of baselines.

    Args:
        rows: of :func:`rows_of`, with their costs.
        finished: what they are of.
        objectives: axes of the front.
        of_files: costs that the exported files are judged by.
    """
    right = {one.member.trial: one.right for one in finished if one.member.kind == "student"}
    judged = with_verdicts([row for row in rows if row.kind == "student"], objectives, right, of_files)
    order = {row.trial: place for place, row in enumerate(judged)}
    paired = sorted((row for row in rows if row.kind == "twin"), key=lambda row: order[row.trial])
    return (*judged, *paired, *(row for row in rows if row.kind == "baseline"))


def with_verdicts(
    students: Sequence[VerifiedRow],
    objectives: Sequence[Objective],
    right: Mapping[int | None, Mapping[int, Bools]],
    of_files: Sequence[str] = (),
) -> list[VerifiedRow]:
    """Who is on the verified front, whose place is within noise; the most accurate first.

    Args:
        students: rows with their figures.
        objectives: axes of the front.
        right: trial to seed to right answers.
        of_files: costs that the exported files are judged by; every student with a figure has them.
    """
    values = [_values(row, objectives, of_files) for row in students]
    ready = [row for row, known in zip(students, values, strict=True) if known is not None]
    losses = to_losses(objectives, [known for known in values if known is not None])
    best = nondominated_mask(losses) if ready else np.zeros(0, dtype=bool)
    verdicts: dict[int | None, FrontVerdict] = {}
    rivals: dict[int | None, tuple[int, ...]] = {}
    others = [index for index, o in enumerate(objectives) if o.name != "accuracy"]
    by_accuracy = len(others) < len(objectives)
    for index, (row, on_front) in enumerate(zip(ready, best, strict=True)):
        verdicts[row.trial] = ("stays" if on_front else "falls") if row.before else ("joins" if on_front else "outside")
        cheaper = (losses[:, others] <= losses[index, others]).all(axis=1)
        near = [ready[k] for k in np.flatnonzero(cheaper) if k != index] if by_accuracy else []
        rivals[row.trial] = tuple(
            int(other.trial) for other in near if other.trial is not None and _alike(row, other, right)
        )
    done = [replace(row, verdict=verdicts.get(row.trial, ""), rivals=rivals.get(row.trial, ())) for row in students]
    return sorted(done, key=lambda row: (row.accuracy is None, -(row.accuracy.mean if row.accuracy else 0.0)))


def _alike(one: VerifiedRow, other: VerifiedRow, right: Mapping[int | None, Mapping[int, Bools]]) -> bool:
    """Whether their accuracies cannot be told apart; two with fewer than two seeds in common are not compared."""
    gap = difference(right[one.trial], right[other.trial])
    return gap is not None and gap.seeds > 1 and not gap.certain


def _values(row: VerifiedRow, objectives: Sequence[Objective], of_files: Sequence[str]) -> dict[str, float] | None:
    """The verified values of all axes; ``None`` while one is missing."""
    found = {**row.costs, **row.means}
    found |= {name: cost for name in of_files if (cost := row.shipped(name)) is not None}
    return found if all(o.name in found for o in objectives) else None


def _row(one: Finished) -> VerifiedRow:
    member, results = one.member, list(one.results.values())
    row = VerifiedRow(
        member.kind,
        member.name,
        trial=member.trial,
        student=dict(member.student),
        distillation=dict(member.distillation),
        train=dict(member.train),
        planned=one.planned,
        costs=dict(member.costs),
        searched=member.searched,
        before=member.before,
        weights=one.weights,
        error=one.error,
    )
    if not results:
        return row
    known = [result.agreement for result in results if result.agreement is not None]
    validated = [result.validation for result in results if result.validation is not None]
    validation = over_seeds(validated) if validated else None
    return replace(
        row,
        seeds=tuple(one.results),
        accuracy=accuracy_figure(np.stack([result.correct() for result in results])),
        validation=validation,
        loss=over_seeds([result.loss for result in results]),
        agreement=over_seeds(known) if known else None,
        ece=over_seeds([result.ece for result in results]),
        measures=_measures(results),
        recalls=mean_recalls([result.confusion for result in results]),
        flattered=None if validation is None or row.searched is None else row.searched - validation.mean,
    )


def _measures(results: Sequence[Result]) -> dict[str, Figure]:
    """Every measure that all results have, over the seeds."""
    names = [name for name in results[0].measures if all(name in one.measures for one in results)]
    return {name: over_seeds([one.measures[name] for one in results]) for name in names}


def _with_gain(row: VerifiedRow, one: Finished, twins: Mapping[int | None, Finished]) -> VerifiedRow:
    twin = twins.get(row.trial)
    gain: Difference | None = None if twin is None else difference(one.right, twin.right)
    return replace(row, gain=gain)
