"""``verify``: trains the front and its near neighbours again, opens the test split for the first time, and judges.

The search proposes; selection flatters, so what it says of its winners is too good. Here every student is trained from
scratch at the top rung with seeds that the search never used, so is the same student without distillation, and both
are looked at on images that nothing before has opened. The steps:

1. choose students (``verify_plan``), and leave out the runs that are finished already;
2. let an engine train the rest (``verify_runs``, ``training/retraining.py``), within the budget where one is given;
3. open the test split, evaluate every finished run and the teacher on it (``verify_test``);
4. export each student once and measure the file (``verify_costs``);
5. put figures, intervals and verdicts together (``verify_table``) and write ``verify.json``, ``.csv`` and ``.png``.
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

_TEST_SECONDS = 5.0  # kept back from a budget: for the test split, and for each file that is exported and timed
_FILE_SECONDS = 1.5


def verify(
    study: Study | str | Path,
    *,
    seeds: int = SEEDS,
    refit: str = "train",
    top: int | None = None,
    trials: Sequence[int] = (),
    twins: bool = True,
    baselines: Sequence[str] = (),
    budget: str | Budget | None = None,
    workers: int | None = None,
    engine: str | None = None,
    progress: bool | Callable[[Snapshot], None] = True,
    **options: Any,
) -> Verified:
    """Train the winners of a study again with several seeds and judge them on the test split.

    What is finished is not trained again; the same call goes on where it was stopped.

    Args:
        study: a study in a folder, or the folder.
        seeds: runs per student; at least three for an interval that knows how seeds differ.
        refit: ``train``, or ``train+val`` to train on the validation images too (then nothing can be said about how
            much the search had flattered).
        top: at most so many students.
        trials: numbers of trials in place of the front and its neighbours.
        twins: train each student without distillation as well.
        baselines: names of timm networks to train without distillation beside them.
        budget: time, e.g. ``"30m"``; the most important runs come first, and what is missing is said.
        workers: slots on this machine; ``None``: the study's own.
        engine: registered engine name; ``None``: the study's own.
        progress: true shows on stderr how far it is, false shows nothing; a function of your own is called with a
            :class:`Snapshot` instead, whenever something happened.
        options: further keywords of the engine.

    Returns:
        The table; ``verify.json``, ``verify.csv`` and ``verify.png`` lie in the study's folder.

    Raises:
        UsageError: the images are not those of the search, or what is asked for is not there.
        AutodistillError: others, see the tree in ``errors.py``.
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
            device=slots[0].device,
        )
        failures = _train(plan, engine, slots, started, limit, callback, options)
        verified = judge(plan, failures, callback)
        write_verified(verified, study.directory)
    return verified


def _seconds(budget: str | Budget | None) -> float | None:
    limits = Budget.parse(budget)
    if budget is not None and (limits.seconds is None or limits != Budget(seconds=limits.seconds)):
        raise UsageError(f"budget {str(budget)!r}: verify is limited by time; write e.g. 90s, 30m or 2h.")
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
    """Train what is waiting; returns why runs failed, by their folder."""
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
