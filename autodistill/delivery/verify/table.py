"""The table of a verification, built from the results of single runs: figures over seeds and the verified front.

The verified front has the objectives of the search. Trained metrics (``accuracy``, ``loss``, ``agreement``) are means
over seeds on the test split. Known costs are not biased by selection, so they are taken from the search. Exceptions are
costs measured on the exported files (``of_files``): users run the file, and its runtime may rank students differently
than torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autodistill.core.records import Objective
from autodistill.delivery.verify.plan import PlannedRow
from autodistill.delivery.verify.statistics import (
    Bools,
    accuracy_figure,
    difference,
    mean_label_recalls,
    mean_recalls,
    over_seeds,
)
from autodistill.search.objectives.pareto import nondominated_mask
from autodistill.search.objectives.values_as_losses import to_losses
from autodistill.search.results.verified import Difference, Figure, FrontVerdict, VerifiedRow
from autodistill.training.trials.run_result import Result


@dataclass(frozen=True)
class Finished:
    """A planned row with its finished runs.

    Attributes:
        member: the planned row.
        results: result by seed, in the order of the seeds.
        planned: number of planned runs.
        weights: folder of the stored weights, relative to the study's folder.
        error: error of a failed run; empty if none failed.
    """

    member: PlannedRow
    results: Mapping[int, Result]
    planned: int
    weights: str = ""
    error: str = ""

    @property
    def right(self) -> dict[int, Bools]:
        """Correctness of each prediction on the test split, by seed."""
        return {seed: result.correct() for seed, result in self.results.items()}


def rows_of(finished: Sequence[Finished]) -> tuple[VerifiedRow, ...]:
    """Build a row for each, in the same order, without verdicts."""
    twins = {one.member.trial: one for one in finished if one.member.kind == "twin"}
    return tuple(_with_gain(_row(one), one, twins) if one.member.kind == "student" else _row(one) for one in finished)


def table(
    rows: Sequence[VerifiedRow],
    finished: Sequence[Finished],
    objectives: Sequence[Objective],
    of_files: Sequence[str] = (),
) -> tuple[VerifiedRow, ...]:
    """Return the rows of students with verdicts (most accurate first), then of their twins, then of baselines.

    Args:
        rows: rows of :func:`rows_of`, with their costs.
        finished: finished runs of the rows.
        objectives: objectives of the front.
        of_files: costs that are taken from the exported files.
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
    """Add verdicts and rivals to the students, and sort them by accuracy, highest first.

    The verdict is about the membership of the verified front. Rivals are students with at most the same costs whose
    accuracy does not differ significantly.

    Args:
        students: rows with their figures.
        objectives: objectives of the front.
        right: correctness of each prediction, by trial and seed.
        of_files: costs that are taken from the exported files; every student with figures has them.
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
    """Return whether two accuracies do not differ significantly; false with fewer than two common seeds."""
    gap = difference(right[one.trial], right[other.trial])
    return gap is not None and gap.seeds > 1 and not gap.certain


def _values(row: VerifiedRow, objectives: Sequence[Objective], of_files: Sequence[str]) -> dict[str, float] | None:
    """Return the verified values of all objectives; ``None`` if one is missing."""
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
        recalls=_recalls(results),
        flattered=None if validation is None or row.searched is None else row.searched - validation.mean,
    )


def _recalls(results: Sequence[Result]) -> tuple[float | None, ...]:
    """Recall of each class, or of each label where images have several, mean over the seeds."""
    if results[0].label_counts:
        return mean_label_recalls([result.label_counts for result in results])
    return mean_recalls([result.confusion for result in results])


def _measures(results: Sequence[Result]) -> dict[str, Figure]:
    """Every measure that all results have, over the seeds."""
    names = [name for name in results[0].measures if all(name in one.measures for one in results)]
    return {name: over_seeds([one.measures[name] for one in results]) for name in names}


def _with_gain(row: VerifiedRow, one: Finished, twins: Mapping[int | None, Finished]) -> VerifiedRow:
    twin = twins.get(row.trial)
    gain: Difference | None = None if twin is None else difference(one.right, twin.right)
    return replace(row, gain=gain)
