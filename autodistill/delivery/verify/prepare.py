"""Planning of a verification: the runs of a study, finished and missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autodistill.core.budget import format_seconds
from autodistill.core.errors import UsageError
from autodistill.core.records import Candidate, Task, TeacherSpec, WorkerContext
from autodistill.core.wording import counted, why_empty
from autodistill.delivery.verify.plan import PlannedRow, by_number, choose_trials, members_of, noise_of, seeds_of
from autodistill.training.trials.run_result import read_result

if TYPE_CHECKING:
    from autodistill.config.study_file import StudyConfig
    from autodistill.search.study.study import Study
    from autodistill.training.trials.retraining import Retraining, RetrainingState

SEEDS = 3


@dataclass(frozen=True)
class Planned:
    """One run of the verification.

    Attributes:
        candidate: candidate to train.
        folder: folder of the run.
        key: key of the training.
        keep: whether its weights are kept after the evaluation.
        seconds: estimated training time.
    """

    candidate: Candidate
    folder: Path
    key: str
    keep: bool
    seconds: float


@dataclass(frozen=True, eq=False)
class Plan:
    """A verification before anything is trained.

    Attributes:
        study: the study to verify.
        retraining: settings of the trainings.
        worker: state with images and teacher.
        members: rows, the most important first.
        seeds: seeds of every row.
        noise: validation accuracy by which neighbours may be below the front.
        runs: all runs, by row and seed; equal runs of several rows share a folder.
        waiting: runs that are not finished, without repetition.
    """

    study: Study
    retraining: Retraining
    worker: RetrainingState
    members: tuple[PlannedRow, ...]
    seeds: tuple[int, ...]
    noise: float
    runs: Mapping[tuple[int, int], Planned]
    waiting: tuple[Planned, ...]

    @property
    def distinct(self) -> list[Planned]:
        """All runs without repetition."""
        return list({run.folder: run for run in self.runs.values()}.values())

    def seconds(self, workers: int) -> float:
        """Estimate the time of the waiting runs from the times of the search's trials."""
        return sum(run.seconds for run in self.waiting) / workers

    def words(self, workers: int) -> str:
        """Describe the plan in one sentence."""
        kinds = [("student", "student"), ("twin", "undistilled twin"), ("baseline", "baseline")]
        counts = [(sum(m.kind == kind for m in self.members), name) for kind, name in kinds]
        rows = ", ".join(f"{count} {name}{'s' * (count > 1)}" for count, name in counts if count)
        total, done = len(self.distinct), len(self.distinct) - len(self.waiting)
        epochs = self.retraining.task.rungs[-1]
        finished = f", {done} of them finished already" if done else ""
        left = (
            f"; about {format_seconds(round(self.seconds(workers)))} on {workers} worker{'s' * (workers > 1)}"
            if self.waiting
            else ""
        )
        runs = f"{counted(len(self.seeds), 'seed')}: {counted(total, 'run')} of {counted(epochs, 'epoch')}"
        return f"{rows}; {runs}{finished}{left}"


def plan_verification(
    study: Study | str | Path,
    *,
    seeds: int = SEEDS,
    refit: str = "train",
    top: int | None = None,
    trials: Sequence[int] = (),
    twins: bool = True,
    baselines: Sequence[str] = (),
    inherit: bool = False,
    device: str = "cpu",
) -> Plan:
    """Plan the runs of :func:`verify` without writing anything.

    Raises:
        UsageError: a trial or network does not exist, the front is empty, or both ``top`` and ``trials`` are given.
    """
    from autodistill.training.students import build as students
    from autodistill.training.trials.retraining import Retraining, RetrainingState

    study = opened(study)
    if top is not None and trials:
        raise UsageError("top and trials are both given; give only one of them.")
    for name in baselines:
        students.validate({"family": "timm", "model": name})
    retraining = Retraining(_task(study), refit, inherit)
    worker = RetrainingState(retraining, WorkerContext(device=device))
    front = study.front().trained()  # verify trains fp32 students, not their int8 forms
    best = max((t.values.get("accuracy", 0.5) for t in front.trials), default=0.5)
    noise = noise_of(best, len(worker.data.val))
    empty = why_empty(study.trials(), study.constraints)
    chosen = by_number(study.trials(), trials) if trials else choose_trials(front, noise=noise, top=top, empty=empty)
    members = members_of(chosen, front, twins=twins, baselines=baselines)
    every = seeds_of(study.seed, seeds)
    runs = _runs(worker, members, every)
    waiting: dict[Path, Planned] = {}
    for run in runs.values():
        if not _is_done(run):
            waiting.setdefault(run.folder, run)
    return Plan(study, retraining, worker, tuple(members), every, noise, runs, tuple(waiting.values()))


def _runs(
    worker: RetrainingState, members: Sequence[PlannedRow], seeds: Sequence[int]
) -> dict[tuple[int, int], Planned]:
    """Return all runs in training order: by kind of row, then by seed, then by row."""
    keeping = {
        worker.plan.key(m.student, m.distillation, m.train, seed=seeds[0]) for m in members if m.kind == "student"
    }
    groups: list[list[int]] = []
    for index, member in enumerate(members):
        before = members[index - 1] if index else None
        if before is None or (before.kind, before.before) != (member.kind, member.before):
            groups.append([])
        groups[-1].append(index)
    out: dict[tuple[int, int], Planned] = {}
    for group in groups:
        for seed in seeds:
            for index in group:
                candidate = members[index].candidate(len(out), seed)
                run = worker.trial(candidate)
                keep = run.folder.name in keeping
                out[index, seed] = Planned(candidate, run.folder, run.key, keep, members[index].seconds)
    return out


def _is_done(run: Planned) -> bool:
    """Return whether nothing is left to train: there is a result, or a student that is not evaluated yet."""
    from autodistill.training.trials.trial_files import finished

    student = finished(run.folder, run.key) is not None
    return student or (read_result(run.folder, run.key) is not None and not run.keep)


def opened(study: Study | str | Path) -> Study:
    """Open a study and check that it has a folder and images.

    Raises:
        UsageError: the study has no folder or no images.
    """
    from autodistill.engines.setup.study_setup import open_to_read
    from autodistill.search.study.study import Study as StudyClass

    if not isinstance(study, StudyClass):
        study = open_to_read(Path(study).resolve())  # never creates a study
    if study.directory is None:
        raise UsageError("this study is in memory; verify needs one in a folder: Study.create(directory=…).")
    if getattr(study.config, "data", None) is None:
        raise UsageError("this study names no data, so its students cannot be trained again.")
    return study


def _task(study: Study) -> Task:
    """Return the task of the study's trials, including the teacher caches of the search.

    Raises:
        UsageError: the study has no teacher yet.
    """
    from autodistill.training.data import datasets
    from autodistill.training.runtime.cache_folder import cache_folder

    config: StudyConfig = study.config
    cache = cache_folder().absolute()
    assert config.data is not None
    assert study.directory is not None
    teacher = config.teacher
    if teacher.source == "auto":
        made = study.directory / "teacher"
        if not (made / "teacher.json").is_file():
            raise UsageError(f"{study.directory} has no teacher yet; continue the search first.")
        teacher = TeacherSpec(str(made), accept_weak=teacher.accept_weak)
    return Task(
        data=config.data,
        teacher=teacher,
        directory=str(study.directory),
        rungs=study.rungs.levels,
        metrics=tuple(o.name for o in study.objectives),
        latency=config.latency,
        training=config.training,
        cache=str(cache),
        measures=config.measures,
        weights=study.space.weights,
        kind=config.task,
        images=datasets.images_key(datasets.load_images(config.data, cache)),
    )
