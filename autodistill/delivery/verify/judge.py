"""Evaluation of a verification: opens the test split once, after all trainings, and builds the table of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autodistill.core.errors import AutodistillError, StoreError
from autodistill.core.records import stable_key
from autodistill.delivery.verify.evaluation import FIELDS, TestSplit, examine
from autodistill.delivery.verify.file_costs import (
    FileCosts,
    file_costs,
    judged_by_files,
    student_network,
    teacher_network,
)
from autodistill.delivery.verify.plan import objective_names
from autodistill.delivery.verify.prepare import Plan, Planned
from autodistill.delivery.verify.statistics import (
    accuracy_figure,
    by_class,
    class_images,
    measure_figure,
)
from autodistill.delivery.verify.table import Finished, rows_of, table
from autodistill.engines.monitor.watch import Watch
from autodistill.search.results.picking import settled
from autodistill.search.results.verified import Figure, Verified, VerifiedRow
from autodistill.search.storage.versions import versions
from autodistill.training.loop.decisions import is_right
from autodistill.training.trials.run_result import Result, read_result

if TYPE_CHECKING:
    from autodistill.engines.monitor.watch import Snapshot


def judge(plan: Plan, failures: Mapping[Path, str], progress: Callable[[Snapshot], None] | None) -> Verified:
    """Open the test split, evaluate the finished runs, and build the table.

    Args:
        plan: the verification.
        failures: errors of failed runs, by folder of the run.
        progress: function called with a snapshot of the progress.

    Raises:
        StoreError: the test images are not those of earlier results.
    """
    from autodistill.training.costs.file_latency import target_words

    watch = Watch(progress)
    worker, study = plan.worker, plan.study
    results, test = _examined(plan, watch)
    finished = [
        Finished(
            member,
            {seed: results[run.folder] for seed in plan.seeds if (run := plan.runs[index, seed]).folder in results},
            len(plan.seeds),
            weights=_weights(plan, index),
            error=next((failures[run.folder] for run in _of(plan, index) if run.folder in failures), ""),
        )
        for index, member in enumerate(plan.members)
    ]
    watch.stage("files", "exporting each student and measuring its file")
    costs = _costs(plan)
    with_costs = [_with_costs(row, costs.get(stable_key(row.student))) for row in rows_of(finished)]
    students = [row for row in with_costs if row.kind == "student"]
    of_files, judged = judged_by_files(students, study.objectives, plan.retraining.task.latency)
    rows = settled(study.front(), table(with_costs, finished, study.objectives, of_files))
    if test is not None:
        rows.append(_teacher_row(plan, test, costs.get("teacher")))
    return Verified(
        study=study.name,
        objectives=objective_names(study.objectives),
        rows=tuple(rows),
        seeds=len(plan.seeds),
        refit=plan.retraining.refit,
        epochs=plan.retraining.task.rungs[-1],
        test_images=0 if test is None else len(test.split),
        validation_images=len(worker.data.val),
        latency=target_words(plan.retraining.task.latency),
        of_files=of_files,
        judged=judged,
        seconds=sum(result.seconds for result in results.values()),
        finished=len(results),
        planned=len(plan.distinct),
        front_before=len(study.front().trained()),
        noise=plan.noise,
        versions=versions(),
        data=worker.data.fingerprint,
        teacher=worker.teacher.fingerprint,
        classes=tuple(worker.data.classes),
    )


def _examined(plan: Plan, watch: Watch) -> tuple[dict[Path, Result], TestSplit | None]:
    """Return the results of all finished runs, evaluating new ones, and the test split if there is any run.

    Raises:
        StoreError: the test images are not those of earlier results.
    """
    from autodistill.training.trials.trial_files import finished

    worker = plan.worker
    # Runs that were trained again because their weights were missing have an outdated result.
    again = {run.folder for run in plan.waiting if finished(run.folder, run.key)}
    ready = {run.folder: None if run.folder in again else read_result(run.folder, run.key) for run in plan.distinct}
    trained = [run for run in plan.distinct if ready[run.folder] or finished(run.folder, run.key)]
    if not trained:
        return {}, None
    watch.stage("test", "opening the test split")
    test = TestSplit.open(worker.task, worker.cache_folder, worker.teacher)
    results: dict[Path, Result] = {}
    for index, run in enumerate(trained, 1):
        result = ready[run.folder] or _examine(plan, run, test)
        if result.test != test.fingerprint:
            raise StoreError(
                f"the test images changed since {run.folder} was evaluated; figures of different images cannot be "
                f"compared. Restore the images, or delete {run.folder.parent} to start again."
            )
        results[run.folder] = result
        watch.stage("test", f"{index} of {len(trained)} runs evaluated", index / len(trained))
    return results, test


def _examine(plan: Plan, run: Planned, test: TestSplit) -> Result:
    worker = plan.worker
    return examine(
        run.folder,
        test,
        refit=plan.retraining.refit,
        keep=run.keep,
        device=worker.context.device,
        own=worker.task.measures,
        validation=worker.data.val,
    )


def _weights(plan: Plan, index: int) -> str:
    """Return the folder of a student's stored weights, relative to the study's; empty if there are none."""
    run = plan.runs[index, plan.seeds[0]]
    if plan.members[index].kind != "student" or not (run.folder / "student").is_dir():
        return ""
    return run.folder.relative_to(plan.retraining.task.directory).as_posix()


def _of(plan: Plan, index: int) -> list[Planned]:
    """Return the runs of one row, in the order of the seeds."""
    return [plan.runs[index, seed] for seed in plan.seeds]


def _costs(plan: Plan) -> dict[str, FileCosts]:
    """Measure costs by the key of an architecture, and those of the teacher under ``"teacher"``.

    Students of the same architecture share the figures of one file. Weights do not change them, and separate
    measurements would differ by chance.
    """
    from autodistill.training.survey.student_costs import StudentCosts

    worker, task = plan.worker, plan.retraining.task
    distinct = {stable_key(member.student): member for member in plan.members}
    networks = {key: student_network(member.student, worker.data) for key, member in distinct.items()}
    teacher = teacher_network(worker.teacher)
    if teacher is not None:
        networks["teacher"] = teacher
    found = file_costs(networks, task, plan.study.objectives)
    measured = StudentCosts(task, worker.data)
    for key, member in distinct.items():
        if member.kind == "baseline" and key in found:
            try:
                known = measured.of(member.student, networks[key].make()).costs
            except AutodistillError:  # e.g. it is missing in the latency table
                continue
            found[key] = replace(found[key], costs={**found[key].costs, **known})
    return found


def _with_costs(row: VerifiedRow, found: FileCosts | None) -> VerifiedRow:
    """Add the size and latency of the file to a row, and counted costs that the search did not have."""
    if found is None:
        return row
    return replace(
        row,
        costs={**found.costs, **row.costs},
        file_bytes=found.bytes,
        file_latency_ms=found.latency_ms,
    )


def _teacher_row(plan: Plan, test: TestSplit, found: FileCosts | None) -> VerifiedRow:
    """Build the row of the teacher on the test split; it has no figures if the teacher has stored logits only."""
    study, teacher = plan.study, plan.worker.teacher
    known = study.teacher_values()
    searched = known.pop("accuracy", None)
    name = teacher.name.replace("\\", "/").rpartition("/")[2]  # verify.json may be shared, so it names no folders
    row = VerifiedRow("teacher", name, searched=searched, costs=known)
    if test.teacher is None:
        return replace(row, error="it has stored logits only, none of test images")
    own, tables = plan.worker.task.measures, (test.confusion(test.teacher), test.label_counts(test.teacher))
    drawn, images = test.resampled(test.teacher, own), class_images(*tables)
    figures = {
        name: measure_figure(name, [value], [drawn[name]] if name in drawn else [], images)
        for name, value in test.scores(test.teacher, own).items()
    }
    right = is_right(test.teacher.numpy(), test.split.labels)
    row = replace(
        row,
        accuracy=accuracy_figure(np.asarray([right])),
        loss=figures["loss"],
        ece=figures["ece"],
        measures={name: figure for name, figure in figures.items() if name not in FIELDS},
        **by_class([tables[0]], [tables[1]]),
        validation=None if searched is None else Figure(searched),
    )
    return _with_costs(row, found)
