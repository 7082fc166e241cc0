"""Evaluation of candidates: a generator that reports known costs, then accuracy at every rung.

The caller can stop the generator after any report. An engine sends ``functools.partial(evaluator, task)`` to its
workers. A worker loads images and teacher once. A stopped trial resumes from its checkpoint and repeats stored reports
that may not have arrived.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autodistill.core.errors import InterruptedTrialError
from autodistill.core.processes import die_with_parent
from autodistill.core.records import Candidate, Evaluate, Report, SurveyRow, Task, WorkerContext, stable_key
from autodistill.core.teacher_choice import member
from autodistill.training.augmentation.policy import Policy
from autodistill.training.data import datasets
from autodistill.training.distillation.class_weights import class_weights
from autodistill.training.distillation.criterion import Distillation, TeacherOutputs
from autodistill.training.distillation.teacher_outputs import CachedTeacher, OnlineTeacher, StoredTeacher
from autodistill.training.loop.trainer import Feed, Trainer, scores
from autodistill.training.runtime import durable_files, measurement_lock
from autodistill.training.runtime.distributed import Team
from autodistill.training.runtime.work_clock import WorkClock
from autodistill.training.students.resolution import side_of
from autodistill.training.students.student_input import DECODED, StudentInput
from autodistill.training.survey.student_costs import StudentCosts
from autodistill.training.teachers import load as teachers
from autodistill.training.teachers.answers import answers
from autodistill.training.teachers.cache.cache import TeacherCache
from autodistill.training.teachers.cache.open_caches import OpenCaches
from autodistill.training.teachers.plain_answers import cache_key, plain_answers
from autodistill.training.teachers.teacher import Teacher
from autodistill.training.trials.helpers import HelperProcesses
from autodistill.training.trials.inheritance import Parent, parent_of
from autodistill.training.trials.remote_trials import no_copy, workplace
from autodistill.training.trials.starting_point import StartingPoint, starting_point
from autodistill.training.trials.training_spec import TrainingSpec
from autodistill.training.trials.trial_files import VARIANTS, finished, save_student, trial_folder
from autodistill.training.trials.trial_files import discard as discard
from autodistill.training.trials.trial_files import load_student as load_student

SHOWN = ("accuracy", "loss", "agreement")
"""Measures in progress lines, beside objectives and constrained ones."""
_CHECKPOINT_SECONDS = 60.0
_PROGRESS_SECONDS = 1.0


def evaluator(task: Task, context: WorkerContext) -> Evaluate:
    """Return the function that evaluates candidates of ``task`` on one worker; its first call loads the images."""
    return WorkerState(task, context).evaluate


class WorkerState:
    """State of one worker: images, teachers, caches and costs, loaded once and shared by its trials.

    Args:
        task: what the study trains and measures.
        context: device, threads and connections of the worker.
    """

    def __init__(self, task: Task, context: WorkerContext) -> None:
        self.place = workplace(task, context.storage, self)
        self.task, self.context = self.place.task, context
        self.device = torch.device(context.device)
        self.cache_folder = Path(task.cache or Path(self.task.directory) / "cache")
        self._caches = OpenCaches(self.cache_folder / "teacher")
        self._teachers: dict[str, Teacher] = {}
        self.clock = WorkClock()
        self.devices = context.devices or (context.device,)
        self.waiting = measurement_lock.Waiting(context.should_stop, self._waited)
        if self.device.type == "cuda" and context.memory_share < 1:
            torch.cuda.set_per_process_memory_fraction(context.memory_share, self.device)

    def evaluate(self, candidate: Candidate) -> Iterator[Report]:
        """Report the known costs (rung 0), then train to each rung and report it.

        Raises:
            InfeasibleError: the student cannot be built for these images.
            DivergedError: the loss is not finite.
            InterruptedTrialError: a stop was requested; a checkpoint is on disk.
            UsageError: a setting does not exist.
        """
        if self.device.type == "cpu":
            torch.set_num_threads(self.context.threads)
        try:
            yield from self.trial(candidate).reports()
        finally:
            measurement_lock.release()

    def trial(self, candidate: Candidate) -> Trial:
        """Return the training of a candidate, whose settings are parsed here."""
        return Trial(self, TrainingSpec.of(candidate, self.task.training, kind=self.task.kind))

    def _waited(self, what: str, seconds: float) -> None:
        """Exclude time spent waiting for another process from the current trial's time."""
        self.clock.leave_out(seconds)
        self.context.waits(what, seconds)

    @cached_property
    def helpers(self) -> HelperProcesses | None:
        """Helper processes on the slot's other devices; None if there is one device."""
        return HelperProcesses(self.task, self.context, _run_helper) if len(self.context.devices) > 1 else None

    @cached_property
    def data(self) -> datasets.ImageData:
        """Training and validation images.

        Raises:
            UnlikeImagesError: they are not those that the driver has read.
        """
        data = datasets.load_images(self.task.data, self.cache_folder)
        return datasets.same_images(data, self.task.images, self.task.data)

    @cached_property
    def feed(self) -> Feed:
        """The training images, on the device if they fit there."""
        return Feed.of(self.data, unlabelled=True).near(self.device)

    @property
    def teacher(self) -> Teacher:
        """The frozen teacher; if there are several, the first."""
        return self.teacher_named(None)

    def teacher_named(self, name: str | None) -> Teacher:
        """Return a frozen teacher of the study, the first one if ``name`` is ``None``; each is loaded once.

        Raises:
            UnknownNameError: the study has no such teacher.
        """
        spec = member(self.task.teacher, name)
        key = stable_key(asdict(spec))
        if key not in self._teachers:
            self._teachers[key] = teachers.load_teacher(spec, self.data, self.device)
        return self._teachers[key]

    @cached_property
    def costs(self) -> StudentCosts:
        """Known costs of students, stored by architecture."""
        return StudentCosts(self.task, self.data, waiting=self.waiting)

    def teacher_on_validation(self, teacher: Teacher) -> Tensor:
        """Return teacher logits ``(n, classes)`` of the validation images, computed once for all workers."""
        if teacher.by_id:
            return answers(teacher, self.data.val)
        return plain_answers(teacher, self.data.val, self.teacher_cache(teacher, Policy(), views=1))

    def teacher_cache(
        self, teacher: Teacher, policy: Policy, *, views: int, embedding: int = 0, megabytes: int | None = None
    ) -> TeacherCache:
        """Open the cache of a teacher's outputs for the views of ``policy``; the most recently used ones stay open."""
        return self._caches.take(
            cache_key(teacher, self.data, policy, self.task.data.seed),
            images=self.data.pool_size,
            classes=len(self.data.classes),
            views=views,
            embedding=embedding,
            max_bytes=None if megabytes is None else megabytes * 2**20,
        )


class Trial:
    """Evaluation of one candidate.

    Args:
        worker: state of the worker.
        spec: what is trained.
    """

    def __init__(self, worker: WorkerState, spec: TrainingSpec) -> None:
        self.worker, self.spec, self.task = worker, spec, worker.task
        self.folder = trial_folder(self.task.directory, spec.number)
        self.clock = worker.clock = WorkClock()
        self._earlier_teacher_seconds = 0.0  # of earlier processes and of validation images
        self._cached_teacher: CachedTeacher | None = None
        self._copy: Callable[[Path], None] = no_copy
        self.stored: dict[int, dict[str, Any]] = {}
        self.team: Team | None = None
        self._saved = self._progress_shown = time.monotonic()
        self._last_metrics: Mapping[str, float] = {}

    def reports(self) -> Iterator[Report]:
        """Yield all reports above the candidate's start rung; see ``WorkerState.evaluate``."""
        with self.worker.place.trial(self.folder) as self._copy:
            yield from self._reports()

    def _reports(self) -> Iterator[Report]:
        self.clock.start()
        model = self._build()
        known = self.worker.costs.of(self.spec.student, model)
        if self.spec.start_rung == 0:
            yield from self._yield_report(Report(0, known.costs, seconds=self.clock.seconds(), noisy=known.noisy))
        done = finished(self.folder, self.key)
        if done is not None:
            self.stored = {int(rung): report for rung, report in done["reports"].items()}
            yield from self._repeated()
            return
        helpers = self.worker.helpers
        with contextlib.nullcontext() if helpers is None else helpers.training(self.spec) as self.team:
            trainer = self.resumed(model, self.team)
            yield from self._repeated()
            yield from self._train(trainer, known)

    def helper_trainer(self, team: Team) -> Trainer:
        """Build the trainer of a helper process of ``team``, restored from the newest checkpoint."""
        return self.resumed(self._build(), team)

    def resumed(self, model: nn.Module, team: Team | None) -> Trainer:
        """Build the trainer of ``model``, restored from the newest checkpoint."""
        trainer = self.trainer(model, team)
        self._resume(trainer)
        return trainer

    def _train(self, trainer: Trainer, known: SurveyRow) -> Iterator[Report]:
        for rung, epochs in enumerate(self.task.rungs, 1):
            if rung in self.stored:
                continue
            if self.worker.helpers is not None:
                self.worker.helpers.run(epochs)
            trainer.run(epochs, tick=lambda: self._tick(trainer))
            report = self._measure(trainer, rung, epochs, known)
            if rung <= self.spec.start_rung:  # reported before, but its checkpoint was lost
                continue
            yield from self._yield_report(report)

    @property
    def teacher(self) -> Teacher:
        """The teacher that this trial distils from."""
        return self.worker.teacher_named(self.spec.teacher)

    @cached_property
    def key(self) -> str:
        """Identifier that is equal for trainings that pass through the same states."""
        worker, task = self.worker, self.task
        facts: list[Any] = [task.data.train_size, task.data.val_fraction, task.data.seed]
        facts += [list(task.rungs), dict(task.training), *(["no copies"] if task.data.drop_duplicates else [])]
        prints = [worker.data.fingerprint, self.teacher.fingerprint, *self.start.key]
        return stable_key([self.spec.settings_key, self.spec.seed, facts, prints])

    @cached_property
    def start(self) -> StartingPoint:
        """What the student starts from, and how its images are normalized."""
        recipe = self.spec.recipe
        return starting_point(
            recipe.init,
            self.spec.student,
            self.worker.data,
            mapping=self.task.weights,
            licence=recipe.licence,
            teacher=lambda: self.teacher,
            parent=self.parent,
        )

    @cached_property
    def input(self) -> StudentInput:
        """Side and normalization of the student's input."""
        return StudentInput(side_of(self.spec.student, self.worker.data.image_size), *self.start.statistics)

    def parent(self) -> Parent | None:
        """Return the finished student that this one starts from with ``init: inherit``, if there is one."""
        return parent_of(self.task.directory, self.spec.number, self.spec.student)

    def _build(self) -> nn.Module:
        return self.start.build(self.worker.data, seed=self.spec.seed, teacher=lambda: self.teacher)

    def trainer(self, model: nn.Module, team: Team | None = None) -> Trainer:
        """Build a trainer of ``model`` with this trial's recipe and loss mix."""
        worker = self.worker
        outputs, view_count = self._teacher_outputs()
        width = self.teacher.embedding_width() if self.spec.mix.uses_embedding else None
        weights = class_weights(self.spec.recipe.class_weights, worker.feed.labels, len(worker.data.classes))
        criterion = Distillation(
            self.spec.mix,
            outputs,
            student=model,
            teacher_width=width,
            seed=self.spec.seed,
            class_weights=weights,
        )
        unlabelled = worker.feed.unlabelled if self.spec.mix.uses_teacher else None
        return Trainer(
            model,
            replace(worker.feed, unlabelled=unlabelled),
            criterion.to(worker.device),
            self.spec.recipe,
            epochs=self.task.rungs[-1],
            seed=self.spec.seed,
            view_seed=self.task.data.seed,
            view_count=view_count,
            policy=self._policy(),
            student_input=self.input,
            device=worker.device,
            team=team,
        )

    def _policy(self) -> Policy:
        """Return the recipe's policy; without augmentation if the teacher has logits of plain images only."""
        policy = self.spec.recipe.policy()
        if self.spec.mix.uses_teacher and self.teacher.by_id:
            return Policy(mix=policy.mix, mix_alpha=policy.mix_alpha)
        return policy

    def _teacher_outputs(self) -> tuple[TeacherOutputs | None, int]:
        """Return the source of the teacher's outputs and the number of views (0: a new view in each epoch)."""
        policy, recipe = self._policy(), self.spec.recipe
        if not self.spec.mix.uses_teacher:
            return None, 0
        teacher, embedding = self.teacher, self.spec.mix.uses_embedding
        if teacher.by_id:
            return StoredTeacher(teacher), 1
        if recipe.teacher_mode == "online":
            return OnlineTeacher(teacher, embedding=embedding), 0
        width = teacher.embedding_width() if embedding else 0
        cache = self.worker.teacher_cache(
            teacher, policy, views=self._views(policy), embedding=width, megabytes=recipe.cache_mb
        )
        outputs = self._cached_teacher = CachedTeacher(teacher, cache, policy, self.task.data.seed, embedding=embedding)
        return outputs, min(cache.views, self._views(policy))

    def _views(self, policy: Policy) -> int:
        return self.spec.recipe.cached_views(self.task.rungs[-1]) if policy.random else 1

    def _resume(self, trainer: Trainer) -> None:
        found = durable_files.load(self.folder, key=self.key)
        if found is None:
            return
        trainer.restore(found.tensors, found.facts["trainer"])
        self.stored = {int(rung): report for rung, report in found.facts["reports"].items()}
        self.clock.add(float(found.facts["seconds"]))
        self._earlier_teacher_seconds = float(found.facts.get("teacher_seconds") or 0.0)

    def _repeated(self) -> Iterator[Report]:
        """Yield stored reports that may not have arrived."""
        for rung, stored in sorted(self.stored.items()):
            if rung > self.spec.start_rung:
                yield from self._yield_report(Report(rung, **stored))

    def _yield_report(self, report: Report) -> Iterator[Report]:
        """Yield the report; the clock is stopped until the caller continues."""
        self.clock.stop()
        measurement_lock.release()  # no training happens while the caller decides
        yield report
        self.clock.start()

    def _tick(self, trainer: Trainer) -> None:
        """Between batches: yield to measurements, stop on request, show progress and save from time to time."""
        measurement_lock.yield_to_measurement(self.worker.devices, waiting=self.worker.waiting)
        now = time.monotonic()
        stop = self.worker.context.should_stop()
        if stop if self.team is None else self.team.agree(stop):
            self._save(trainer)
            raise InterruptedTrialError(
                f"trial {self.spec.number} was stopped after {trainer.epoch:.1f} of {trainer.epochs} epochs."
            )
        if now - self._progress_shown >= _PROGRESS_SECONDS:
            self._progress_shown = now
            self.worker.context.progress(trainer.epoch, trainer.epochs, self._last_metrics)
        if now - self._saved >= _CHECKPOINT_SECONDS:
            self._save(trainer)

    def _measure(self, trainer: Trainer, rung: int, epochs: int, known: SurveyRow) -> Report:
        """Measure the averaged weights on the validation images and store the report; return it."""
        self.worker.context.pause()
        model = trainer.evaluation_model()
        val = self.worker.data.val
        logits = trainer.predict(model, torch.from_numpy(val.images))
        began = time.monotonic()
        teacher_logits = self.worker.teacher_on_validation(self.teacher)
        self._earlier_teacher_seconds += time.monotonic() - began
        trained = scores(logits, torch.from_numpy(val.labels), teacher_logits, self.task.measures)
        self._last_metrics = {name: value for name, value in trained.items() if name in {*SHOWN, *self.task.metrics}}
        top = epochs >= self.task.rungs[-1]
        variants = self._variants(model, known.costs) if top else {}
        values = {**trained, **known.costs}
        teacher_seconds = self._teacher_seconds()
        report = Report(rung, values, float(epochs), self.clock.seconds(), variants, known.noisy, teacher_seconds)
        self.stored[rung] = {"values": values, "epochs": report.epochs, "seconds": report.seconds}
        if teacher_seconds is not None:
            self.stored[rung]["teacher_seconds"] = teacher_seconds
        if variants:
            self.stored[rung]["variants"] = variants
        if known.noisy:
            self.stored[rung]["noisy"] = True
        if not top:
            self._save(trainer)
        else:
            self._copy(save_student(self.folder, model.state_dict(), self._facts()))
            durable_files.clear(self.folder)
        return report

    def _variants(self, model: nn.Module, known: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """Measure the precision variants of the finished student from their files."""
        if set(self.task.variants) == {"fp32"}:
            return {}
        from autodistill.training.trials.variants import VariantWork

        work = VariantWork(self.worker.data, self.input, self.task.variants, self.worker.costs, self.task.measures)
        teacher = self.worker.teacher_on_validation(self.teacher)
        return work.of(self.spec.student, model, self.folder / VARIANTS, known, teacher)

    def _teacher_seconds(self) -> float | None:
        """Return the teacher's seconds so far, including earlier processes; None if its outputs are not cached."""
        return None if self._cached_teacher is None else self._earlier_teacher_seconds + self._cached_teacher.seconds

    def _save(self, trainer: Trainer) -> None:
        self._saved = time.monotonic()
        tensors, facts = trainer.state()
        stored = {"trainer": facts, "reports": self.stored, "seconds": self.clock.seconds()}
        stored["teacher_seconds"] = self._teacher_seconds()
        stored["candidate"] = {"student": dict(self.spec.student), **self.spec.proposed, "seed": self.spec.seed}
        state = durable_files.Checkpoint(trainer.step, self.key, tensors, stored)
        self._copy(durable_files.save(self.folder, state))

    def _facts(self) -> dict[str, Any]:
        data = self.worker.data
        return {
            "architecture": dict(self.spec.student),
            **self.spec.proposed,
            "seed": self.spec.seed,
            "image_size": self.input.image_size,
            **({} if self.input.image_size == data.image_size else {DECODED: data.image_size}),
            "channels": data.channels,
            "classes": data.classes,
            "task": data.kind,
            "mean": self.input.mean,
            "std": self.input.std,
            **self.start.facts(),
            "reports": self.stored,
            "epochs": self.task.rungs[-1],
            "seconds": self.clock.seconds(),
            "key": self.key,
        }


def _run_helper(pipe: Connection, task: Task, context: WorkerContext, file: str, rank: int, size: int) -> None:
    """Main function of a helper process: train as rank 0's messages request, until the pipe closes."""
    die_with_parent()
    try:
        team = Team.join(file, rank, size, context.device)
        worker = WorkerState(task, context)
        message = pipe.recv()
        while True:
            message = _train_with_rank_0(pipe, worker, team, message[1])
    except (EOFError, OSError):
        return
    except BaseException as error:
        with contextlib.suppress(OSError):
            pipe.send((type(error).__name__, str(error)))


def _train_with_rank_0(pipe: Connection, worker: WorkerState, team: Team, spec: TrainingSpec) -> tuple[Any, ...]:
    """Train one candidate together with rank 0; return the message that begins the next candidate."""
    trainer = Trial(worker, spec).helper_trainer(team)
    while True:
        message: tuple[Any, ...] = pipe.recv()
        if message[0] == "run":
            with contextlib.suppress(InterruptedTrialError):
                trainer.run(message[1], tick=functools.partial(_stop_with_rank_0, team))
        elif message[0] == "begin":
            return message


def _stop_with_rank_0(team: Team) -> None:
    """Raise an InterruptedTrialError before the step at which rank 0 stops."""
    if team.agree(False):
        raise InterruptedTrialError("rank 0 stopped")
