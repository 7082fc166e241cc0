"""Times of the parts of a search on this machine: set-up, epochs, evaluations, and teacher outputs per view."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autodistill.config.study_file import StudyConfig
from autodistill.core.budget import Budget
from autodistill.core.errors import InfeasibleError
from autodistill.core.records import LATENCY, LatencyTarget, Params, stable_key
from autodistill.engines.driving.slots import Slot, devices_each, make_slots
from autodistill.engines.timing.cold_views import cold_views, mean_setting, setting_values
from autodistill.engines.timing.survey_pool import SURVEY_SECONDS, SURVEY_SHARE, draw_pool, has_survey, pool_size
from autodistill.engines.timing.timing import FORWARD, SMALL_BATCH, SMALL_STEP, START, STEP, Job, Timing, timed
from autodistill.search.objectives.objectives import resolve
from autodistill.search.space.space import Space

if TYPE_CHECKING:
    from autodistill.training.costs.cost_memory import CostMemory
    from autodistill.training.data.datasets import ImageData

STUDENTS = 8
"""Number of students that are timed, of as many families as possible. Their mean predicts the mean training time of the
space to about 30 %."""

_LINES_SECONDS = 10.0  # between two lines about the decoding of images

DRAWS = 60
"""Number of random draws from the space that the timed students are chosen from."""


@dataclass(frozen=True)
class SearchTimes:
    """Times of the parts of a search, in seconds, and the counts they depend on.

    Attributes:
        train_images: Number of training images.
        val_images: Number of validation images.
        image_size: Image side in pixels.
        classes: Number of classes.
        candidates: Size of the space; ``None`` if infinite.
        epochs: Time of one epoch of each timed student, on one worker, without the teacher.
        report: Time of the evaluation at a rung.
        trial: Further time per trial: building the student and measuring its costs.
        view: Time of the teacher for one view of all training images; 0 if no trial needs it.
        views: For each augmentation, the number of cached views, and the most views that are ever needed.
        always: Whether every trial has its own views.
        survey: Time of the survey before the trials.
        teaching: Time of training a teacher before the trials.
        preflight: Time of checking the teacher before the trials.
        boot: Time to start the workers.
        workers: Number of workers.
        devices: Number of devices per trial.
        timed: The timed students, each with its seconds per epoch.
        batch: Images per step that the times of an epoch are for.
        steps: For each timed student, the seconds of a step of ``batch`` images and of the small batch of ``timing``.
        unlabelled_images: Number of unlabelled images.
    """

    train_images: int
    val_images: int
    image_size: int
    classes: int
    candidates: int | None
    epochs: tuple[float, ...]
    report: float
    trial: float
    view: float
    views: tuple[tuple[float, float], ...]
    always: bool
    survey: float
    teaching: float
    preflight: float
    boot: float
    workers: int
    devices: float
    timed: tuple[tuple[Params, float], ...] = ()
    batch: int = 64
    steps: tuple[tuple[float, float], ...] = ()
    unlabelled_images: int = 0

    def with_batch(self, batch: int) -> SearchTimes:
        """Return the same times for steps of ``batch`` images, on the line through the two batches that were timed."""
        if batch == self.batch or not self.steps or self.batch <= SMALL_BATCH:
            return self
        share = (batch - SMALL_BATCH) / (self.batch - SMALL_BATCH)
        seconds = tuple(small + share * (large - small) for large, small in self.steps)
        epochs = tuple(one * max(1, self.train_images // batch) for one in seconds)
        timed = tuple((student, one) for (student, _), one in zip(self.timed, epochs, strict=True))
        return replace(self, epochs=epochs, timed=timed)

    def faster_half(self) -> SearchTimes:
        """Return the same times with only the faster half of the timed students."""
        half = sorted(self.epochs)[: (len(self.epochs) + 1) // 2]
        return replace(self, epochs=tuple(half))

    def with_views(self, most: int) -> SearchTimes:
        """Return the same times with at most ``most`` views per image."""
        return replace(self, views=tuple((min(filled, most), min(limit, most)) for filled, limit in self.views))

    @property
    def mean(self) -> float:
        """Return the mean time of an epoch over the timed students."""
        return statistics.fmean(self.epochs)

    def cold(self, epochs: float, trials: float) -> float:
        """Return the teacher's time for ``trials`` trials of ``epochs`` epochs, summed over workers."""
        if self.always:
            return self.view * epochs * trials
        wanted = sorted((max(0.0, min(most, epochs) - filled) for filled, most in self.views), reverse=True)
        whole, part = int(min(len(wanted), trials)), min(1.0, trials % 1 if trials < len(wanted) else 0.0)
        return self.view * (sum(wanted[:whole]) + (part * wanted[whole] if whole < len(wanted) else 0.0))

    def room(self, budget: Budget) -> float:
        """Return the seconds that a budget leaves for trials, summed over workers; infinite without a time limit."""
        before = self.survey + self.teaching + self.preflight + self.boot
        rooms = [math.inf]
        if budget.seconds is not None:
            rooms.append(max(0.0, budget.seconds - before) * self.workers)
        if budget.device_seconds is not None:
            rooms.append(budget.device_seconds / self.devices)
        return min(rooms)

    def count(self, budget: Budget, epochs: float, reports: float, *, trained: float = 0.0) -> float | None:
        """Return how many trials fit into a budget; ``None`` without a limit.

        Args:
            budget: Budget of the study.
            epochs: Mean epochs per trial.
            reports: Mean reports per trial.
            trained: Epochs of the longest trials, which determine the views needed; ``epochs`` by default.
        """
        counts = [float(budget.trials)] if budget.trials is not None else []
        if budget.epochs is not None:
            counts.append(budget.epochs / epochs)
        room = self.room(budget)
        if math.isfinite(room):
            counts.append(self._count(room, epochs, reports, max(trained, epochs)))
        return min(counts, default=None)

    def _count(self, room: float, epochs: float, reports: float, trained: float) -> float:
        each = epochs * self.mean + reports * self.report + self.trial
        low, high = 0.0, room / each
        if high * each + self.cold(trained, high) <= room:
            return high
        for _ in range(40):  # bisection, since the teacher's time grows with the number of trials up to a limit
            middle = 0.5 * (low + high)
            fits = middle * each + self.cold(trained, middle) <= room
            low, high = (middle, high) if fits else (low, middle)
        return low


def measure_times(config: StudyConfig, space: Space, *, say: Callable[[str], None]) -> SearchTimes:
    """Time a few students of ``space``, and the teacher, on the study's images.

    Args:
        config: Configuration of the study.
        space: Search space of the study.
        say: Called with each step of the work, in words.

    Raises:
        AutodistillError: The data cannot be read, or no student of the space can be trained.
    """
    from autodistill.core.teacher_choice import accepts_weak
    from autodistill.training.costs.cost_memory import CostMemory
    from autodistill.training.data.datasets import check_files, check_parts, decoding_shown, load_images
    from autodistill.training.runtime.cache_folder import cache_folder
    from autodistill.training.teachers.checking.preflight import check_enough

    assert config.data is not None
    say(f"reading {config.data.source}")
    cache = cache_folder().absolute()
    with decoding_shown(_decoding_lines(say)):
        check_files(config.data, cache)
        data = load_images(config.data, cache)
    check_parts(config.data, data, cache, remarks=False)  # before minutes are spent; the remarks follow later
    if not accepts_weak(config.teacher):
        check_enough(data)
    slots, memory = _slots(config), CostMemory(cache)
    job = _job(config, space, data, slots[0], cache)
    return _search_times(config, space, data, slots, memory, job, timed(job, memory, say=say))


def _decoding_lines(say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Return a progress of decoding that says a line every ten seconds."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINES_SECONDS:
            last = time.monotonic()
            say(f"decoding images: {done:,} of {total:,}")

    return progress


def _search_times(
    config: StudyConfig,
    space: Space,
    data: ImageData,
    slots: Sequence[Slot],
    memory: CostMemory,
    job: Job,
    timing: Timing,
) -> SearchTimes:
    """Convert the timing to times for the study's images.

    Raises:
        InfeasibleError: No student could be timed.
    """
    first = len(job.students) - len(_drawn(space))
    steps, forward = timing.of(STEP, first), timing.of(FORWARD, first)
    if not steps:
        raise InfeasibleError(
            "no student of the space could be timed: none of "
            f"{len(_drawn(space))} trained for a few steps on these images within {START:g} s. Either the machine is "
            "busy with other work, or no student of the space can be trained on these images."
        )
    teacher = timing.rows.get(0, {}) if first else {FORWARD: timing.image}
    steps_per_epoch, per_image = max(1, len(data.train) // job.batch), teacher.get(FORWARD, 0.0)
    teaching = _teaching_epochs(config, data) * teacher.get(STEP, 0.0) * steps_per_epoch
    cost = timing.cost or SURVEY_SECONDS
    online = "online" in setting_values(space, config.training, "teacher_mode", "cached")
    rows = [(place, row) for place, row in sorted(timing.rows.items()) if place >= first and STEP in row]
    return SearchTimes(
        train_images=len(data.train),
        val_images=len(data.val),
        image_size=data.image_size,
        classes=len(data.classes),
        candidates=space.size(),
        epochs=tuple(one * steps_per_epoch for one in steps),
        report=statistics.fmean(forward) * len(data.val),
        trial=cost,
        view=per_image * len(data.train) * (1 + job.unlabelled),
        views=_views(space, config, data),
        always=online or bool(cold_views(space, config.training)),
        survey=_survey_seconds(config, space, data, memory, cost),
        teaching=teaching,
        preflight=per_image * len(data.val),
        boot=timing.boot if len(slots) > 1 else 0.0,
        workers=len(slots),
        devices=devices_each(slots),
        timed=tuple((job.students[place], row[STEP] * steps_per_epoch) for place, row in rows),
        batch=job.batch,
        steps=tuple((row[STEP], row[SMALL_STEP]) for _, row in rows),
        unlabelled_images=0 if data.unlabelled is None else len(data.unlabelled),
    )


def _drawn(space: Space) -> list[Params]:
    """Choose the students to time, always the same ones of a space: one of each family first."""
    rng = np.random.default_rng(0)
    drawn: list[Params] = [space.nest(space.sample(rng))["student"] for _ in range(DRAWS)]
    different = list({stable_key(one): one for one in drawn}.values())
    of_family = {str(one.get("family", "")): one for one in reversed(different)}.values()
    firsts = {stable_key(one) for one in of_family}
    different.sort(key=lambda one: stable_key(one) not in firsts)  # stable: in the order of the draws otherwise
    return different[:STUDENTS]


def _slots(config: StudyConfig) -> tuple[Slot, ...]:
    return make_slots(
        config.workers,
        devices_per_trial=config.devices_per_trial,
        slots_per_gpu=1 if config.slots_per_gpu == "auto" else config.slots_per_gpu,
    )


def _job(config: StudyConfig, space: Space, data: ImageData, slot: Slot, cache: Path) -> Job:
    from autodistill.training.trials.teach import default_architecture

    students = _drawn(space)
    if _teaching_epochs(config, data):
        students.insert(0, default_architecture(data.image_size))
    surveyed = (
        has_survey(config.survey, resolve(config.objectives, measured=config.measures)) and LATENCY in config.objectives
    )
    elsewhere = config.latency.table is not None or config.latency.command is not None
    latency: LatencyTarget | None = config.latency if surveyed and not elsewhere else None
    assert config.data is not None
    shape = {"image_size": data.image_size, "channels": data.channels, "num_classes": len(data.classes)}
    return Job(
        tuple(students),
        shape,
        batch=min(int(config.training.get("batch_size", 64)), len(data.train)),
        training=config.training,
        device=slot.device,
        threads=slot.threads,
        data=config.data,
        cache=str(cache),
        teacher=None if config.teacher.source == "auto" else config.teacher,
        latency=latency,
        unlabelled=_unlabelled_ratio(config, space, data),
    )


def _unlabelled_ratio(config: StudyConfig, space: Space, data: ImageData) -> float:
    """Return the mean number of unlabelled images in a batch per labelled image; 0 if there are none."""
    from autodistill.training.loop.recipe import Recipe

    if data.unlabelled is None:
        return 0.0
    return mean_setting(space, config.training, "unlabelled_ratio", Recipe.unlabelled_ratio)


def _teaching_epochs(config: StudyConfig, data: ImageData) -> float:
    """Return the epochs of training a teacher; 0 if one exists, or the user chose its architecture."""
    from autodistill.training.trials.teach import default_epochs

    options = config.teacher.options
    if config.teacher.source != "auto" or "model" in options or "weights" in options:
        return 0.0
    pretrained = bool(options.get("pretrained", False))
    return float(options.get("epochs", default_epochs(len(data.train), data.image_size, pretrained=pretrained)))


def _survey_seconds(config: StudyConfig, space: Space, data: ImageData, memory: CostMemory, cost: float) -> float:
    """Estimate the seconds to measure the students whose costs are not stored, at most the survey's time share."""
    if not has_survey(config.survey, resolve(config.objectives, measured=config.measures)):
        return 0.0
    seconds = config.limits.seconds
    pool = draw_pool(space, pool_size(config.survey, seconds), seed=config.seed)
    shape, classes = {"image_size": data.image_size, "channels": data.channels}, len(data.classes)
    target = config.latency if LATENCY in config.objectives else None
    new = sum(memory.get(memory.key(one, shape, classes), ("params", "macs"), target) is None for one in pool)
    return min(new * cost, math.inf if seconds is None else SURVEY_SHARE * seconds)


def _views(space: Space, config: StudyConfig, data: ImageData) -> tuple[tuple[float, float], ...]:
    """Return, for each possible augmentation, the number of cached views and the most views that are needed."""
    from autodistill.training.augmentation.policy import Policy
    from autodistill.training.loop.recipe import MAX_VIEWS, Recipe, scaled
    from autodistill.training.runtime.cache_folder import teacher_caches
    from autodistill.training.teachers.cache.folders import list_caches

    strengths = [
        float(one) for one in setting_values(space, config.training, "augment_strength", str(Recipe.augment_strength))
    ]
    names = setting_values(space, config.training, "augment", Recipe.augment)
    policies = {p.view_key(): p for name in names for s in strengths for p in [scaled(Policy.parse(name), s)]}
    filled: dict[str, float] = {}
    for cache in list_caches(teacher_caches()):
        if cache.key.data == data.fingerprint and cache.key.seed == data_seed(config):
            filled.setdefault(cache.key.views, cache.filled / max(1, len(data.train)))
    most = int(config.training.get("views", 0)) or MAX_VIEWS
    return tuple((filled.get(key, 0.0), float(most if policy.random else 1)) for key, policy in policies.items())


def data_seed(config: StudyConfig) -> int:
    """Return the seed of splits and views."""
    return config.data.seed if config.data is not None else 0
