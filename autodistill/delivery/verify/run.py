"""``verify``: retrains the front and its near neighbours, and evaluates them on the test split.

The search selects students by their validation accuracy, so this accuracy is biased upwards. ``verify`` trains every
student, and the same student without distillation, from scratch to the top rung with new seeds. Both are evaluated on
images that were not opened before. The steps:

1. choose students (``plan``, ``prepare``), and skip finished runs;
2. let an engine train the rest (``queue``, ``training/trials/retraining.py``), within the budget if one is given;
3. open the test split, and evaluate every finished run and the teacher on it (``judge``, ``evaluation``);
4. export each student once and measure the file (``file_costs``);
5. compute figures, intervals and verdicts (``table``), and write ``verify.json``, ``.csv`` and ``.png`` (``write``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.budget import Budget
from autodistill.core.errors import UsageError
from autodistill.delivery.verify.judge import judge
from autodistill.delivery.verify.prepare import SEEDS, Plan, opened, plan_verification
from autodistill.delivery.verify.queue import Queue, QueueWatch, VerifyJob
from autodistill.delivery.verify.write import write_verified
from autodistill.search.results.verified import Verified

if TYPE_CHECKING:
    from autodistill.config.study_file import StudyConfig
    from autodistill.engines.driving.slots import Slot
    from autodistill.engines.monitor.watch import Snapshot
    from autodistill.search.study.study import Study

_TEST_SECONDS = 5.0  # part of a budget that is reserved for the test split
_FILE_SECONDS = 1.5  # part of a budget that is reserved for the export and latency of each file


def verify(
    study: Study | str | Path,
    *,
    seeds: int = SEEDS,
    refit: str = "train",
    top: int | None = None,
    trials: Sequence[int] = (),
    twins: bool = True,
    baselines: Sequence[str] = (),
    inherit: bool = False,
    budget: str | Budget | None = None,
    workers: int | None = None,
    engine: str | None = None,
    progress: bool | Callable[[Snapshot], None] = True,
    **options: Any,
) -> Verified:
    """Retrain the best students of a study with several seeds and evaluate them on the test split.

    Finished runs are not trained again; repeat the same call to resume an interrupted verification.

    Args:
        study: a study in a folder, or the folder.
        seeds: runs per student; at least 3 for an interval that includes the differences between seeds.
        refit: ``train``, or ``train+val`` to train on the validation images too. With ``train+val``, the bias of the
            search's accuracies cannot be measured.
        top: largest number of students.
        trials: numbers of trials to verify instead of the front and its neighbours.
        twins: train each student without distillation as well.
        baselines: names of timm networks to train without distillation for comparison.
        inherit: let students with ``init: inherit`` start from the same student as in the search; otherwise they are
            trained from random weights.
        budget: time limit, e.g. ``"30m"``; the most important runs come first, and the result lists missing runs.
        workers: slots on this machine; ``None`` uses the study's setting.
        engine: name of a registered engine; ``None`` uses the study's engine.
        progress: true shows progress on stderr, false shows nothing; a function is called with a :class:`Snapshot`
            at every change instead.
        options: further keywords of the engine.

    Returns:
        The table, which is also written to ``verify.json``, ``verify.csv`` and ``verify.png`` in the study's folder.

    Raises:
        UsageError: the images are not those of the search, or a requested trial or network does not exist.
        AutodistillError: other errors, see the tree in ``errors.py``.
        KeyboardInterrupt: after SIGINT, when everything is saved; ``SystemExit(143)`` after SIGTERM, 129 after SIGHUP.
    """
    from autodistill.engines import check_keywords
    from autodistill.engines.driving.slots import make_slots
    from autodistill.engines.monitor.progress import shown
    from autodistill.engines.setup.provenance import check_images
    from autodistill.search.storage.study_folder import folder_lock

    study = opened(study)
    started, limit = time.monotonic(), _seconds(budget)
    config: StudyConfig = study.config
    engine = engine or config.engine
    check_keywords(engine, options, verify)
    slots = make_slots(workers if workers is not None else config.workers, limited=engine == "local")
    assert study.directory is not None
    with folder_lock(study.directory), shown(progress) as callback:
        check_images(study)
        plan = plan_verification(
            study,
            seeds=seeds,
            refit=refit,
            top=top,
            trials=trials,
            twins=twins,
            baselines=baselines,
            inherit=inherit,
            device=slots[0].device,
        )
        failures = _train(plan, engine, slots, started, limit, callback, options)
        verified = judge(plan, failures, callback)
        write_verified(verified, study.directory)
    return verified


def _seconds(budget: str | Budget | None) -> float | None:
    limits = Budget.parse(budget)
    if budget is not None and (limits.seconds is None or limits != Budget(seconds=limits.seconds)):
        raise UsageError(f"budget is {str(budget)!r}, but verify is limited by time; give e.g. 90s, 30m or 2h.")
    return limits.seconds


def _train(
    plan: Plan,
    engine: str,
    slots: Sequence[Slot],
    started: float,
    limit: float | None,
    progress: Callable[[Snapshot], None] | None,
    options: Mapping[str, Any],
) -> dict[Path, str]:
    """Train the waiting runs; return the errors of failed runs by folder."""
    from autodistill.engines import engines
    from autodistill.engines.driving.worker import Isolated
    from autodistill.training.trials.retraining import retrainer

    reserve = _TEST_SECONDS + _FILE_SECONDS * len(plan.members)
    deadline = None if limit is None else started + max(limit - reserve, limit / 2)

    def over() -> bool:
        return deadline is not None and time.monotonic() >= deadline

    jobs = [VerifyJob(run.candidate, run.seconds) for run in plan.waiting]
    queue = Queue(plan.study.name, jobs, workers=len(slots), enough=over, directory=plan.study.directory)
    words = {run.candidate.number: _words(plan, place) for place, run in plan.runs.items()}
    watch = QueueWatch(progress, queue, words)
    watch.stage("verify", plan.words(len(slots)))
    if jobs:
        watch.until(over)
        with watch.signals():
            factory = Isolated(retrainer, plan.retraining)
            engines.get(engine)(queue, factory, slots, watch, **options)
        watch.update()
    watch.pass_on()
    folders = {run.candidate.number: run.folder for run in plan.waiting}
    return {folders[number]: why for number, why in queue.failures.items()}


def _words(plan: Plan, place: tuple[int, int]) -> str:
    member = plan.members[place[0]]
    what = f"trial {member.trial}" if member.trial is not None else member.name
    twin = " undistilled" if member.kind == "twin" else ""
    return f"{what}{twin}, seed {plan.seeds.index(place[1]) + 1}"
