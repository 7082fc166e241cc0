"""The table of a verification, built from the results of single runs: figures over seeds and the verified front.

The verified front has the objectives of the search. Trained metrics (``accuracy``, ``loss``, ``agreement``) are means
over seeds on the test split. Known costs are not biased by selection, so they are taken from the search. Exceptions are
costs measured on the exported files (``of_files``): users run the file, and its runtime may rank students differently
than torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autodistill.core.records import Objective
from autodistill.delivery.verify.plan import PlannedRow
from autodistill.delivery.verify.statistics import (
    Bools,
    Drawn,
    accuracy_figure,
    by_class,
    class_images,
    difference,
    measure_difference,
    measure_figure,
    over_seeds,
)
from autodistill.search.objectives.objectives import objectives as registry
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

    def drawn(self, name: str) -> dict[int, Drawn]:
        """Return a measure and its values for resampled images, by seed; runs of earlier versions are left out."""
        found = {}
        for seed, result in self.results.items():
            values = {**result.measures, "loss": result.loss, "ece": result.ece, "agreement": result.agreement}
            value, drawn = values.get(name), result.resampled()
            if value is not None and name in drawn:
                found[seed] = (value, drawn[name])
        return found


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
    """Return the rows of students with verdicts (the best first), then of their twins, then of baselines.

    Args:
        rows: rows of :func:`rows_of`, with their costs.
        finished: finished runs of the rows.
        objectives: objectives of the front.
        of_files: costs that are taken from the exported files.
    """
    name = judged_measure(objectives)
    alike = _alike(name, [one for one in finished if one.member.kind == "student"])
    judged = with_verdicts([row for row in rows if row.kind == "student"], objectives, name, alike, of_files)
    order = {row.trial: place for place, row in enumerate(judged)}
    paired = sorted((row for row in rows if row.kind == "twin"), key=lambda row: order[row.trial])
    return (*judged, *paired, *(row for row in rows if row.kind == "baseline"))


def judged_measure(objectives: Sequence[Objective]) -> Objective | None:
    """Return the objective that students are sorted and compared by: accuracy, else the first that is trained."""
    trained = [o for o in objectives if o.stage == "trained"]
    return next((o for o in trained if o.name == "accuracy"), trained[0] if trained else None)


def with_verdicts(
    students: Sequence[VerifiedRow],
    objectives: Sequence[Objective],
    judged: Objective | None,
    alike: Callable[[int | None, int | None], bool],
    of_files: Sequence[str] = (),
) -> list[VerifiedRow]:
    """Add verdicts and rivals to the students, and sort them, the best first.

    The verdict is about the membership of the verified front. Rivals are students with at most the same costs that do
    not differ significantly in the ``judged`` objective.

    Args:
        students: rows with their figures.
        objectives: objectives of the front.
        judged: objective of :func:`judged_measure`.
        alike: whether two trials do not differ significantly in it.
        of_files: costs that are taken from the exported files; every student with figures has them.
    """
    values = [_values(row, objectives, of_files) for row in students]
    ready = [row for row, known in zip(students, values, strict=True) if known is not None]
    losses = to_losses(objectives, [known for known in values if known is not None])
    best = nondominated_mask(losses) if ready else np.zeros(0, dtype=bool)
    verdicts: dict[int | None, FrontVerdict] = {}
    rivals: dict[int | None, tuple[int, ...]] = {}
    others = [index for index, o in enumerate(objectives) if judged is None or o.name != judged.name]
    for index, (row, on_front) in enumerate(zip(ready, best, strict=True)):
        verdicts[row.trial] = ("stays" if on_front else "falls") if row.before else ("joins" if on_front else "outside")
        cheaper = (losses[:, others] <= losses[index, others]).all(axis=1)
        near = [ready[k].trial for k in np.flatnonzero(cheaper) if k != index and judged is not None]
        rivals[row.trial] = tuple(int(other) for other in near if other is not None and alike(row.trial, other))
    done = [replace(row, verdict=verdicts.get(row.trial, ""), rivals=rivals.get(row.trial, ())) for row in students]
    first = judged or registry.get("accuracy")
    return sorted(done, key=lambda row: (first.name not in row.means, first.loss(row.means.get(first.name, 0.0))))


def _alike(judged: Objective | None, finished: Sequence[Finished]) -> Callable[[int | None, int | None], bool]:
    """Return whether two trials do not differ significantly; false with fewer than two common seeds."""
    by_trial = {one.member.trial: one for one in finished}
    images = next((class_images(r.confusion, r.label_counts) for one in finished for r in one.results.values()), [])

    def alike(one: int | None, other: int | None) -> bool:
        if judged is None:
            return False
        if judged.name == "accuracy":
            gap = difference(by_trial[one].right, by_trial[other].right)
        else:
            name = judged.name
            gap = measure_difference(name, by_trial[one].drawn(name), by_trial[other].drawn(name), images)
        return gap is not None and gap.seeds > 1 and not gap.certain

    return alike


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
    figures = _figures(results)
    validated = [result.validation for result in results if result.validation is not None]
    validation = over_seeds(validated) if validated else None
    return replace(
        row,
        seeds=tuple(one.results),
        accuracy=accuracy_figure(np.stack([result.correct() for result in results])),
        validation=validation,
        loss=figures.pop("loss"),
        agreement=figures.pop("agreement", None),
        ece=figures.pop("ece"),
        measures=figures,
        **by_class([result.confusion for result in results], [result.label_counts for result in results]),
        flattered=None if validation is None or row.searched is None else row.searched - validation.mean,
    )


def _figures(results: Sequence[Result]) -> dict[str, Figure]:
    """Return every measure but accuracy that all results have, over the seeds and test images."""
    found = [{**one.measures, "loss": one.loss, "ece": one.ece, "agreement": one.agreement} for one in results]
    drawings = [one.resampled() for one in results]
    images = class_images(results[0].confusion, results[0].label_counts)
    out = {}
    for name in found[0]:
        values = [value for one in found if (value := one.get(name)) is not None]
        drawn = [one[name] for one in drawings if name in one]
        if len(values) == len(results) or (name == "agreement" and values):
            out[name] = measure_figure(name, values, drawn, images)
    return out


def _with_gain(row: VerifiedRow, one: Finished, twins: Mapping[int | None, Finished]) -> VerifiedRow:
    twin = twins.get(row.trial)
    gain: Difference | None = None if twin is None else difference(one.right, twin.right)
    return replace(row, gain=gain)
