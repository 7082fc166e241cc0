"""Timing of a few training steps of a few students, and of the teacher, in a separate process.

A student may crash the process that trains it, and a teacher may be the user's code; neither may end the command. The
times are stored for this machine, so that a second start needs no timing.
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
    from torch import nn

    from autodistill.training.costs.cost_memory import CostMemory

LIMIT = 10.0
"""Seconds for the timing, counted from the moment at which the process is ready."""

START = 60.0
"""Seconds until the process must be ready and have timed enough students; a busy machine needs that long."""

ENOUGH = 3
"""Students that are timed even if it takes longer than :data:`LIMIT`, since one student says little about a space."""

EACH = 0.6
"""Seconds of steps per student, without the first step."""

_STEPS = 3  # steps per student
_DEATHS = 3  # most processes that may die
STEP, SMALL_STEP, FORWARD = "step_seconds", "small_step_seconds", "forward_seconds"
"""Times of a student: a training step of the job's batch, one of :data:`SMALL_BATCH` images, and the evaluation of one
image."""

SMALL_BATCH = 16
"""Images of the second step that is timed. Time per image depends on the batch: on one thread, a student of photographs
may take twice as long per image with 16 images as with 64."""

LOAD = 2.0
"""Largest ratio of wall-clock to CPU time that is used: a longer time is due to other load, which comes and goes."""

BUSY = 1.5
"""Largest ratio of wall-clock to CPU time with which a timing is stored; above it the machine was busy."""

_IMAGE, _BOOT, _COST = "image_seconds", "boot_seconds", "cost_seconds"


@dataclass(frozen=True)
class Job:
    """Description of what to time.

    Attributes:
        students: Architectures, the most important first.
        shape: ``image_size``, ``channels`` and ``num_classes``.
        batch: Images per step.
        training: Training settings shared by all trials.
        device: Torch device of the trainings.
        threads: CPU threads of a worker.
        data: Images, for the teacher.
        cache: Folder of decoded images, for the teacher.
        teacher: Teacher to time; ``None`` for none.
        latency: How the survey measures latency; ``None`` if it only counts.
        unlabelled: Unlabelled images in a batch per labelled image.
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
    unlabelled: float = 0.0


@dataclass(frozen=True)
class Timing:
    """Result of a timing, in seconds.

    Attributes:
        rows: Times of each timed student, by its index in the job; see :meth:`of`.
        image: Time of the teacher for one image; 0 if it was not timed.
        cost: Time of the survey of one student; 0 if it was not timed.
        boot: Time from the start of a process until it can train.
        deaths: Number of processes that died while they trained a student.
    """

    rows: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    image: float = 0.0
    cost: float = 0.0
    boot: float = 0.0
    deaths: int = 0

    def of(self, name: str, first: int = 0) -> list[float]:
        """Return the time ``name`` (:data:`STEP` or :data:`FORWARD`) of all students from index ``first`` on."""
        return [row[name] for place, row in sorted(self.rows.items()) if place >= first and name in row]


@dataclass
class _Found:
    """Times found so far.

    Attributes:
        rows: Times by key of the memory and name.
        busy: Keys of times measured on a busy machine, which are not stored.
        deaths: Number of processes that died.
    """

    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    deaths: int = 0


def ignore(words: str) -> None:
    """Ignore a progress message."""


def timed(job: Job, memory: CostMemory, *, say: Callable[[str], None] = ignore) -> Timing:
    """Time everything in a job whose time is not stored yet.

    Args:
        job: What to time.
        memory: Stored times; new ones are added and saved.
        say: Called with each step of the work, in words.
    """
    keys = [memory.key(one, _shape(job), job.shape["num_classes"]) + _place(job) for one in job.students]
    wanted: dict[str, tuple[str, ...]] = dict.fromkeys(keys, (STEP, SMALL_STEP, FORWARD))
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
    """Return the names of the times besides those of the students."""
    teacher, survey = job.teacher is not None, job.latency is not None
    return (_BOOT, *([_IMAGE] if teacher else []), *([_COST] if survey else []))


def _measure(job: Job, missing: Mapping[str, Params], others: Sequence[str], found: _Found) -> None:
    """Measure missing times in a process; if a student crashes it, start it again without that student."""
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
    """Run one process and collect its times.

    Returns:
        ``None`` if the process finished or the time is up. If it died: key of the student that it was timing, or
        ``""`` for anything else.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = _started(job, theirs)
    started, running = time.monotonic(), ""
    until, ready, students = started + START, started, 0
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
            students += kind == STEP
            if students >= min(ENOUGH, len(keys)):
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
    """Start the process with its end of the pipe, which is then closed in this process.

    ``subprocess`` is used because ``multiprocessing`` would import the user's script again.
    """
    code = "from autodistill.engines.timing.timing import serve; serve()"
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
    """Run the process: read a job as JSON from stdin; the argument is the file descriptor of the pipe."""
    die_with_parent()
    fields = json.loads(sys.stdin.buffer.read())
    job = Job(
        **{
            **fields,
            "students": tuple(fields["students"]),
            "data": DataSpec(**fields["data"]),
            "teacher": None if fields["teacher"] is None else TeacherSpec(**fields["teacher"]),
            "latency": None if fields["latency"] is None else LatencyTarget(**fields["latency"]),
        }
    )
    _work(Connection(int(sys.argv[1]), readable=False), job)


def _work(pipe: Connection, job: Job) -> None:
    """Measure the times of a job, and send them through the pipe."""
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
    """Stopwatch for wall-clock and CPU time.

    Args:
        threads: Number of CPU threads that work; 0 if another device does the work.
    """

    def __init__(self, threads: int) -> None:
        self._threads, self._start = threads, (time.perf_counter(), time.process_time())

    def _clocks(self) -> tuple[float, float]:
        wall = time.perf_counter() - self._start[0]
        worked = (time.process_time() - self._start[1]) / max(1, self._threads)
        return wall, max(worked, 1e-6) if self._threads else wall

    @property
    def seconds(self) -> float:
        """Return the wall-clock time, limited to :data:`LOAD` times the CPU time to exclude most of other load."""
        wall, worked = self._clocks()
        return min(wall, LOAD * worked)

    @property
    def busy(self) -> float:
        """Return the ratio of wall-clock to CPU time."""
        wall, worked = self._clocks()
        return wall / worked


def _threads(job: Job) -> int:
    return job.threads if job.device == "cpu" else 0


def _time_all(pipe: Connection, job: Job) -> None:
    """Time students, teacher and survey; the teacher comes second, so that both are known if the time runs out."""
    from autodistill.core.errors import AutodistillError

    def send(kind: str, index: int, measure: Callable[[], dict[str, float]]) -> None:
        pipe.send(("begin", index, {}, 1.0))
        watch = _Stopwatch(_threads(job))
        with contextlib.suppress(AutodistillError, RuntimeError):  # the search itself reports such errors
            pipe.send((kind, index, measure(), watch.busy))

    for index, student in enumerate(job.students):
        send(STEP, index, partial(_student_seconds, student, job))
        if index == 0 and job.teacher is not None:
            send(_IMAGE, -1, partial(_image_seconds, job))
    if not job.students and job.teacher is not None:
        send(_IMAGE, -1, partial(_image_seconds, job))
    if job.latency is not None and job.students:
        send(_COST, -1, partial(_survey_seconds, job.students[-1], job))


def _student_seconds(student: Params, job: Job) -> dict[str, float]:
    """Time a training step, as in a trial, of two batch sizes, and the evaluation of an image."""
    from autodistill.training.students import build as students
    from autodistill.training.students.resolution import side_of

    shape: dict[str, Any] = dict(job.shape)
    model, side = students.build_student(student, **shape), side_of(student, job.shape["image_size"])
    seconds = {STEP: 0.0, FORWARD: 0.0, SMALL_STEP: 0.0}
    seconds[STEP], seconds[FORWARD] = _batch_seconds(model, side, job, batch=job.batch, most=EACH)
    small = min(SMALL_BATCH, job.batch)
    seconds[SMALL_STEP] = seconds[STEP]
    if small < job.batch:
        seconds[SMALL_STEP] = _batch_seconds(model, side, job, batch=small, most=EACH / 2)[0]
    return seconds


def _batch_seconds(model: nn.Module, side: int, job: Job, *, batch: int, most: float) -> tuple[float, float]:
    """Return the seconds of one training step and of the evaluation of one image.

    Args:
        model: the student.
        side: pixels per side of its input.
        job: what is timed; the images have its side.
        batch: images per step.
        most: seconds after which no further step is timed.
    """
    import torch

    from autodistill.training.distillation.criterion import Distillation
    from autodistill.training.distillation.loss_mix import LossMix
    from autodistill.training.loop.recipe import Recipe
    from autodistill.training.loop.trainer import Feed, Trainer
    from autodistill.training.loop.unlabelled_feed import UnlabelledFeed
    from autodistill.training.students.student_input import StudentInput

    size, channels, classes = job.shape["image_size"], job.shape["channels"], job.shape["num_classes"]
    images = torch.randint(0, 256, (batch, channels, size, size), dtype=torch.uint8)
    ids = torch.arange(batch)
    further = round(job.unlabelled * batch)
    unlabelled = UnlabelledFeed(images.repeat(-(-further // batch), 1, 1, 1)[:further], torch.arange(further))
    feed = Feed(
        images, ids % classes, ids, (0.5,) * channels, (0.25,) * channels, classes, unlabelled if further else None
    )
    settings = {"init": "random", "freeze": 0, "compile": False, "unlabelled_ratio": job.unlabelled}
    recipe = Recipe.parse({**job.training, **settings, "batch_size": batch})
    seen = StudentInput(side, feed.mean, feed.std)
    trainer = Trainer(
        model, feed, Distillation(LossMix()), recipe, epochs=10_000, seed=0, student_input=seen, device=job.device
    )  # one batch is an epoch
    trainer.run(1)
    took: list[float] = []
    while len(took) < _STEPS and sum(took) < most:
        watch = _Stopwatch(_threads(job))
        trainer.run(trainer.step + 1)
        took.append(watch.seconds)
    watch = _Stopwatch(_threads(job))
    trainer.predict(model.eval(), images)
    return min(took), watch.seconds / batch


def _survey_seconds(student: Params, job: Job) -> dict[str, float]:
    """Time what a survey measures of one student."""
    from autodistill.training.costs import latency_protocol as latency
    from autodistill.training.costs.counts import known_costs
    from autodistill.training.students import build as students
    from autodistill.training.students.resolution import side_of

    assert job.latency is not None
    watch = _Stopwatch(_threads(job))
    shape: dict[str, Any] = _shape(job)
    model = students.build_student(student, **shape, num_classes=job.shape["num_classes"])
    size, channels = side_of(student, shape["image_size"]), shape["channels"]
    known_costs(model, image_size=size, channels=channels)
    latency.measure_latency(model, job.latency, image_size=size, channels=channels)
    return {_COST: watch.seconds}


def _image_seconds(job: Job) -> dict[str, float]:
    """Time the teacher for one image of a batch; 0 for a teacher with stored outputs."""
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
    """Return the part of the key that identifies everything but the student: batch, settings, device, machine."""
    from autodistill.training.costs.cost_memory import machine

    settings = sorted((name, str(value)) for name, value in job.training.items())
    further = [job.unlabelled] if job.unlabelled else []
    return ":timing:" + stable_key([job.batch, settings, job.device, job.threads, machine(job.latency), *further])


def _key(job: Job, name: str) -> str:
    """Return the key under which a time other than a student's is stored; the teacher's includes its files."""
    if name != _IMAGE or job.teacher is None:
        return stable_key([name, dict(job.shape), _place(job)])
    files = []
    for source in (job.teacher.source, job.teacher.weights):
        with contextlib.suppress(OSError, TypeError, ValueError):
            path = Path(str(source))
            every = sorted(path.iterdir()) if path.is_dir() else [path]
            files += [(one.name, one.stat().st_size, one.stat().st_mtime) for one in every]
    return stable_key([name, asdict(job.teacher), files, dict(job.shape), _place(job)])
