"""Times a few training steps of a few students, and the teacher, in a process of their own.

A student may kill the process that trains it, and a teacher is code of the user's own: neither is to end the command.
What was timed is remembered for this machine, so that a second start asks nothing.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.processes import die_with_parent
from autodistill.core.records import DataSpec, LatencyTarget, Params, TeacherSpec, stable_key

if TYPE_CHECKING:
    from autodistill.training.costs.cost_memory import CostMemory

LIMIT = 10.0
"""Seconds after which what is timed has to do, from the moment on at which the process is ready."""

START = 60.0
"""Seconds that the process may take until it is ready and has timed enough students: on a busy machine, many."""

ENOUGH = 3
"""Students without which the time is not up: one says little of a space."""

EACH = 0.6
"""Seconds of steps of one student, the first step not counted."""

_STEPS = 3
_DEATHS = 3
STEP, FORWARD = "step_seconds", "forward_seconds"
"""Of a student: one training step, and the evaluation of one image."""

LOAD = 2.0
"""How many times longer than its work on the processor something is taken to last: other load comes and goes."""

BUSY = 1.5
"""How many times longer than its work of the processor a timing may take to be remembered: the machine was not free."""

_IMAGE, _BOOT, _COST = "image_seconds", "boot_seconds", "cost_seconds"


@dataclass(frozen=True)
class Job:
    """What is timed.

    Attributes:
        students: architectures, the most wanted first.
        shape: ``image_size``, ``channels`` and ``num_classes``.
        batch: images per step.
        training: settings of all trials.
        device: where students train.
        threads: of a worker.
        data: images, for the teacher; so is ``cache``, the folder of decoded ones.
        teacher: ``None`` where none is to be timed.
        latency: how a survey measures; ``None`` where it only counts.
    """

    students: tuple[Params, ...]
    shape: Mapping[str, int]
    batch: int
    training: Mapping[str, Any]
    device: str
    threads: int
    data: DataSpec
    cache: str
    teacher: TeacherSpec | None = None
    latency: LatencyTarget | None = None


@dataclass(frozen=True)
class Timing:
    """Seconds.

    Attributes:
        rows: of each student that was timed, by its place in the job: see :meth:`of`.
        image: what the teacher takes for one image; 0 for one that was not timed.
        cost: what the survey of a student takes; 0 where it was not timed.
        boot: from the start of a process until it can train.
        deaths: processes that died while they trained a student.
    """

    rows: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    image: float = 0.0
    cost: float = 0.0
    boot: float = 0.0
    deaths: int = 0

    def of(self, name: str, first: int = 0) -> list[float]:
        """One figure of all students from the ``first`` on: :data:`STEP` or :data:`FORWARD`."""
        return [row[name] for place, row in sorted(self.rows.items()) if place >= first and name in row]


@dataclass
class _Found:
    """Figures by key and name; some are of a busy machine and are not remembered."""

    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    deaths: int = 0


def _nobody(words: str) -> None:
    """Takes words that nobody reads."""


def timed(job: Job, memory: CostMemory, *, say: Callable[[str], None] = _nobody) -> Timing:
    """Time what is not remembered.

    Args:
        job: what to time.
        memory: what is remembered; new figures are added and saved.
        say: told what is going on.
    """
    keys = [memory.key(one, _shape(job), job.shape["num_classes"]) + _place(job) for one in job.students]
    wanted: dict[str, tuple[str, ...]] = dict.fromkeys(keys, (STEP, FORWARD))
    wanted |= {_key(job, name): (name,) for name in _others(job)}
    found = _Found()
    for key, names in wanted.items():
        if (row := memory.get(key, names, None)) is not None:
            found.rows[key] = row
    missing = {key: one for key, one in zip(keys, job.students, strict=True) if key not in found.rows}
    others = [name for name in _others(job) if _key(job, name) not in found.rows]
    if missing or others:
        say(f"timing {len(missing)} students" + (" and the teacher" if _IMAGE in others else ""))
        _measure(job, missing, others, found)
        for key in found.rows.keys() - found.busy:
            memory.put(key, found.rows[key], LatencyTarget())
        memory.save()
    rows = {place: found.rows[key] for place, key in enumerate(keys) if key in found.rows}
    image, cost, boot = (found.rows.get(_key(job, name), {}).get(name, 0.0) for name in (_IMAGE, _COST, _BOOT))
    return Timing(rows, image, cost, boot, found.deaths)


def _others(job: Job) -> tuple[str, ...]:
    """What is timed beside the students."""
    teacher, survey = job.teacher is not None, job.latency is not None
    return (_BOOT, *([_IMAGE] if teacher else []), *([_COST] if survey else []))


def _measure(job: Job, missing: Mapping[str, Params], others: Sequence[str], found: _Found) -> None:
    """Fill in what is missing, by a process that is started again without the student that killed it."""
    left = dict(missing)
    while found.deaths < _DEATHS:
        one = replace(
            job,
            students=tuple(left.values()),
            teacher=job.teacher if _IMAGE in others and _key(job, _IMAGE) not in found.rows else None,
            latency=job.latency if _COST in others else None,
        )
        running = _one_process(one, list(left), job, found)
        if running is None:
            return
        for key in (*found.rows, running):
            left.pop(key, None)
        found.deaths += 1
        if not running:  # it was the teacher, or the process itself
            job = replace(job, teacher=None, latency=None)


def _one_process(job: Job, keys: Sequence[str], whole: Job, found: _Found) -> str | None:
    """Take what one process tells; ``None`` where it was done or the time is up, else the key it died at, or empty."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = _started(job, theirs)
    started, running = time.monotonic(), ""
    until, ready, told = started + START, started, 0
    try:
        while ours.poll(max(0.0, until - time.monotonic())):
            kind, index, row, busy = ours.recv()
            if kind == "done":
                return None
            if kind == "begin":
                running = keys[index] if index >= 0 else ""
                continue
            if kind == _BOOT:
                ready = time.monotonic()
                row = {_BOOT: min(ready - started, LOAD * row[_BOOT])}
            key = keys[index] if kind == STEP else _key(whole, kind)
            found.rows[key] = row
            told += kind == STEP
            if told >= min(ENOUGH, len(keys)):
                until = ready + LIMIT
            if busy > BUSY:
                found.busy.add(key)
        return None
    except (EOFError, OSError):
        return running
    finally:
        process.kill()
        process.wait()
        ours.close()


def _started(job: Job, pipe: Connection) -> subprocess.Popen[bytes]:
    """The process, given its end of the pipe, which is closed here.

    It is no child of ``multiprocessing``, which would run the user's script once more.
    """
    code = "from autodistill.engines.setup.timing import serve; serve()"
    with pipe:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(pipe.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=[pipe.fileno()],
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as stream:
        stream.write(json.dumps(asdict(job)).encode())
    return process


def serve() -> None:
    """Body of the process: a job as JSON on stdin, the number of the pipe as argument."""
    die_with_parent()
    told = json.loads(sys.stdin.buffer.read())
    job = Job(
        **{
            **told,
            "students": tuple(told["students"]),
            "data": DataSpec(**told["data"]),
            "teacher": None if told["teacher"] is None else TeacherSpec(**told["teacher"]),
            "latency": None if told["latency"] is None else LatencyTarget(**told["latency"]),
        }
    )
    _work(Connection(int(sys.argv[1]), readable=False), job)


def _work(pipe: Connection, job: Job) -> None:
    """Tell through the pipe what things take."""
    import torch

    from autodistill.training.loop import trainer
    from autodistill.training.students import build as students

    del students, trainer
    if job.device == "cpu":
        torch.set_num_threads(job.threads)
    with contextlib.suppress(BrokenPipeError):
        pipe.send((_BOOT, -1, {_BOOT: time.process_time()}, 1.0))
        _time_all(pipe, job)
        pipe.send(("done", -1, {}, 1.0))


class _Stopwatch:
    """Wall-clock time beside the work of the processor.

    Args:
        threads: that work; 0 where another device does.
    """

    def __init__(self, threads: int) -> None:
        self._threads, self._start = threads, (time.perf_counter(), time.process_time())

    def _clocks(self) -> tuple[float, float]:
        wall = time.perf_counter() - self._start[0]
        worked = (time.process_time() - self._start[1]) / max(1, self._threads)
        return wall, max(worked, 1e-6) if self._threads else wall

    @property
    def seconds(self) -> float:
        """How long it took, without most of what others did on the machine meanwhile."""
        wall, worked = self._clocks()
        return min(wall, LOAD * worked)

    @property
    def busy(self) -> float:
        """How many times longer it took than the work itself."""
        wall, worked = self._clocks()
        return wall / worked


def _threads(job: Job) -> int:
    return job.threads if job.device == "cpu" else 0


def _time_all(pipe: Connection, job: Job) -> None:
    """The teacher comes after the first student, so that something of both is known when the time is up."""
    from autodistill.core.errors import AutodistillError

    def tell(kind: str, index: int, figures: Callable[[], dict[str, float]]) -> None:
        pipe.send(("begin", index, {}, 1.0))
        watch = _Stopwatch(_threads(job))
        with contextlib.suppress(AutodistillError, RuntimeError):  # the search itself says what is wrong
            pipe.send((kind, index, figures(), watch.busy))

    for index, student in enumerate(job.students):
        tell(STEP, index, partial(_student_seconds, student, job))
        if index == 0 and job.teacher is not None:
            tell(_IMAGE, -1, partial(_image_seconds, job))
    if not job.students and job.teacher is not None:
        tell(_IMAGE, -1, partial(_image_seconds, job))
    if job.latency is not None and job.students:
        tell(_COST, -1, partial(_survey_seconds, job.students[-1], job))


def _student_seconds(student: Params, job: Job) -> dict[str, float]:
    """A training step as a trial does it, and an evaluation."""
    import torch

    from autodistill.training.distillation.criterion import Distillation
    from autodistill.training.distillation.loss_mix import LossMix
    from autodistill.training.loop.recipe import Recipe
    from autodistill.training.loop.trainer import Feed, Trainer
    from autodistill.training.students import build as students

    size, channels, classes = job.shape["image_size"], job.shape["channels"], job.shape["num_classes"]
    shape: dict[str, Any] = dict(job.shape)
    model = students.build_student(student, **shape)
    images = torch.randint(0, 256, (job.batch, channels, size, size), dtype=torch.uint8)
    ids = torch.arange(job.batch)
    feed = Feed(images, ids % classes, ids, (0.5,) * channels, (0.25,) * channels, classes)
    recipe = Recipe.parse({**job.training, "batch_size": job.batch, "init": "random", "compile": False})
    trainer = Trainer(
        model, feed, Distillation(LossMix()), recipe, epochs=10_000, seed=0, device=job.device
    )  # one batch is an epoch
    trainer.run(1)
    took: list[float] = []
    while len(took) < _STEPS and sum(took) < EACH:
        watch = _Stopwatch(_threads(job))
        trainer.run(trainer.step + 1)
        took.append(watch.seconds)
    watch = _Stopwatch(_threads(job))
    trainer.predict(model.eval(), images)
    return {STEP: min(took), FORWARD: watch.seconds / job.batch}


def _survey_seconds(student: Params, job: Job) -> dict[str, float]:
    """What a survey measures of one student."""
    from autodistill.training.costs import latency_protocol as latency
    from autodistill.training.costs.counts import known_costs
    from autodistill.training.students import build as students

    assert job.latency is not None
    watch = _Stopwatch(_threads(job))
    shape: dict[str, Any] = _shape(job)
    model = students.build_student(student, **shape, num_classes=job.shape["num_classes"])
    known_costs(model, **shape)
    latency.measure_latency(model, job.latency, **shape)
    return {_COST: watch.seconds}


def _image_seconds(job: Job) -> dict[str, float]:
    """Seconds that the teacher takes for one image of a batch; 0 where it computes nothing."""
    import torch

    from autodistill.core.teacher_choice import member
    from autodistill.training.data import datasets
    from autodistill.training.teachers import load as teachers

    assert job.teacher is not None
    data = datasets.load_images(job.data, job.cache)
    teacher = teachers.load_teacher(member(job.teacher, None), data, job.device)
    if teacher.by_id:
        return {_IMAGE: 0.0}
    count, took = min(32, len(data.train)), []
    pixels = torch.from_numpy(data.train.images[:count]).to(teacher.device).float().div_(255)
    for _ in range(3):
        watch = _Stopwatch(_threads(job))
        teacher(pixels).cpu()
        took.append(watch.seconds)
    return {_IMAGE: min(took[1:]) / count}


def _shape(job: Job) -> dict[str, int]:
    return {name: job.shape[name] for name in ("image_size", "channels")}


def _place(job: Job) -> str:
    """What the time of a step depends on beside the student."""
    from autodistill.training.costs.cost_memory import machine

    settings = sorted((name, str(value)) for name, value in job.training.items())
    return ":timing:" + stable_key([job.batch, settings, job.device, job.threads, machine(job.latency)])


def _key(job: Job, name: str) -> str:
    """Under what a figure of no student is remembered: the teacher's depends on its files."""
    if name != _IMAGE or job.teacher is None:
        return stable_key([name, dict(job.shape), _place(job)])
    files = []
    for source in (job.teacher.source, job.teacher.weights):
        with contextlib.suppress(OSError, TypeError, ValueError):
            path = Path(str(source))
            every = sorted(path.iterdir()) if path.is_dir() else [path]
            files += [(one.name, one.stat().st_size, one.stat().st_mtime) for one in every]
    return stable_key([name, asdict(job.teacher), files, dict(job.shape), _place(job)])
