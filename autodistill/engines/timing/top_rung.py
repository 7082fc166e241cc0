"""Length of a full training if the user gives none: as many epochs as let a useful number of trainings fit the budget.

The number is chosen when a study is created, from times measured on this machine, and stored in its ``study.yaml``. A
resumed study keeps it, whatever its budget.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autodistill.config.study_file import StudyConfig, default_epochs
from autodistill.core.budget import Budget, format_seconds
from autodistill.core.errors import AutodistillError, InfeasibleError

if TYPE_CHECKING:
    from autodistill.engines.timing.training_times import SearchTimes
    from autodistill.search.space.space import Space

WISHED = 20
"""Number of full trainings of the faster half of the students that should fit into the budget.

A front of five to ten students needs about twelve full trainings, and nearly half of the work goes into trials that are
stopped early. A short search trains few slow students to the end, so these do not shorten the trainings of all."""

VIEW_SHARE = 0.08
"""Share of the work that the teacher may take for the views of all augmentations of the space.

With fewer views than epochs the views are reused in turn, which costs little accuracy and leaves more time for
students. On 3,068 photographs of 96 px the teacher takes 11 s for one view and a small student 5 s for an epoch. With
seven views for each of five augmentations, the first third of a search of 20 minutes went mostly to the teacher."""

LEAST_VIEWS = 2
"""Smallest number of views."""

STEPS = 1500
"""Optimizer steps that a full training should have. On 3,068 photographs of 96 px, nine epochs with batches of 64 are
423 steps and gave a small residual network 0.633 of validation accuracy (one seed); 32 gave 0.692, 16 gave 0.710."""

FIRST_STEPS = 300
"""Optimizer steps before the lowest rung, if the rungs are chosen with the epochs.

After the 191 steps of one epoch, 26 of 33 students of 96 px photographs had accuracies between 0.24 and 0.42, whatever
they reached later (seed 0): a third of the time was spent on a comparison without information."""

LEAST_STEP = 0.01
"""Seconds per step below which the batch is not made smaller, since such a step is mostly overhead."""

LEAST_BATCH = 16
"""Smallest batch size that is chosen."""

HANDFUL = 4
"""Fewest full trainings for a useful front."""

LADDER = (4, 6, 9, 12, 15, 18, 21, 24, 27, 30)
"""Lengths in epochs to choose from, coarse so that small timing differences do not matter; their thirds are rungs."""


@dataclass(frozen=True)
class Length:
    """Length of a full training.

    Attributes:
        config: Configuration with its epochs.
        message: One sentence for the user; empty if there is nothing to report.
        seconds: Seconds that the timing took.
        times: Measured times of the parts of the search; ``None`` if nothing was timed.
    """

    config: StudyConfig
    message: str = ""
    seconds: float = 0.0
    times: SearchTimes | None = None


def choose_length(config: StudyConfig, space: Space, *, say: Callable[[str], None] | None = None) -> Length:
    """Choose the epochs of a full training, and with them views, batch size and rungs that the user left open.

    Args:
        config: Configuration of a new study; its ``epochs`` are ``None`` if the user gave none.
        space: Search space of the study.
        say: Called with each step of the work, in words.
    """
    if config.data is None:
        return Length(config)
    ceiling = default_epochs(config)
    budget = config.limits
    if config.storage is not None:  # the database may hold the study, with other epochs than a new timing would give
        return Length(_with(config, config.epochs or ceiling))
    if config.epochs is None and (budget.epochs is not None and budget.seconds is None):
        epochs = fitting_epochs(budget.epochs, ceiling)
        fit = int(budget.epochs / epochs)
        return Length(_with(config, epochs), _because(epochs, f"about {fit}", "", str(budget)))
    timed = config.engine == "local" and (budget.seconds is not None or budget.device_seconds is not None)
    if not timed:
        return Length(_with(config, config.epochs or ceiling))
    from autodistill.engines.timing.timing import ignore
    from autodistill.engines.timing.training_times import measure_times

    started = time.monotonic()
    try:
        times = measure_times(config, space, say=say or ignore)
    except InfeasibleError as error:
        config, took = _with(config, config.epochs or ceiling), time.monotonic() - started
        return Length(config, f"{config.epochs} epochs, without a check whether the budget suffices: {error}", took)
    except AutodistillError:  # problems of the images are reported where they are read
        return Length(_with(config, config.epochs or ceiling))
    took = time.monotonic() - started
    if config.epochs is not None:
        return Length(config, budget_problem(times, budget, config.epochs), took, times)
    batch, epochs, views = _batch_epochs_views(times, config, space, ceiling)
    limited = times.with_batch(batch).with_views(views) if views else times.with_batch(batch)
    count = full_trainings(limited.faster_half(), budget, epochs)
    message = _because(epochs, f"about {count:.0f}", " of the faster half of the students", str(budget))
    message = message if epochs < ceiling else budget_problem(limited, budget, epochs)
    if 0 < views < epochs:
        config = config.model_copy(update={"training": {**config.training, "views": views}})
        message = f"{message}. {_views_words(views, times)}".removeprefix(". ")
    if batch != times.batch:
        config = config.model_copy(update={"training": {**config.training, "batch_size": batch}})
        steps = times.train_images // batch * epochs
        message = f"{message}. Batches of {batch} images give a full training {steps:,} steps".removeprefix(". ")
    return Length(with_rungs(_with(config, epochs), times.train_images), message, took, limited)


def with_rungs(config: StudyConfig, images: int) -> StudyConfig:
    """Remove the automatic rungs before :data:`FIRST_STEPS` and before a third of the training; keep the user's rungs.

    A third of a training tells something however few steps it has, so that trials can still be stopped early.

    Args:
        config: Configuration of the study.
        images: Number of training images.
    """
    from autodistill.search.rungs.levels import Rungs
    from autodistill.training.loop.recipe import Recipe

    if config.rungs != "auto" or config.epochs is None:
        return config
    steps = max(1, images // int(config.training.get("batch_size", Recipe.batch_size)))
    every = Rungs.geometric(config.epochs).levels
    levels = [level for level in every if level * steps >= FIRST_STEPS or 3 * level >= config.epochs]
    return config if len(levels) == len(every) else config.model_copy(update={"rungs": {"levels": levels}})


def _batch_epochs_views(times: SearchTimes, config: StudyConfig, space: Space, ceiling: int) -> tuple[int, int, int]:
    """Choose batch size, epochs and views together, since a smaller batch makes an epoch longer.

    The default batch is halved until a full training has :data:`STEPS` steps, but not below :data:`LEAST_BATCH`, nor
    where a step of the fastest students would take less than :data:`LEAST_STEP`, nor where the budget is so short that
    fewer than half of the :data:`WISHED` trainings would fit. The user's batch size is kept, and that of the space.

    Returns:
        Batch size, epochs and views; 0 views if they need no limit.
    """
    fixed = "batch_size" in config.training or any(p.name == "train.batch_size" for p in space.parameters)
    batch, found = times.batch, _epochs_views(times, config, ceiling)
    while not fixed and batch > LEAST_BATCH and times.train_images // batch * found[0] < STEPS:
        here = times.with_batch(batch // 2)
        smaller = _epochs_views(here, config, ceiling)
        step = here.faster_half().mean * (batch // 2) / times.train_images
        limited = here.with_views(smaller[1]) if smaller[1] else here
        if step < LEAST_STEP or full_trainings(limited.faster_half(), config.limits, smaller[0]) < WISHED / 2:
            break
        batch, found = batch // 2, smaller
    return batch, *found


def _epochs_views(times: SearchTimes, config: StudyConfig, ceiling: int) -> tuple[int, int]:
    views = views_for(times, config.limits, config)
    limited = times.with_views(views) if views else times
    return fitting(limited.faster_half(), config.limits, ceiling), views


def views_for(times: SearchTimes, budget: Budget, config: StudyConfig) -> int:
    """Return the number of views per image with which the teacher takes :data:`VIEW_SHARE` of the work, or the least.

    Returns:
        The number; 0 if views need no limit or the user sets one.
    """
    room = times.room(budget)
    if "views" in config.training or not times.view or times.always or math.isinf(room):
        return 0
    augmentations = sum(most > 1 for _, most in times.views)
    return max(LEAST_VIEWS, int(VIEW_SHARE * room / (times.view * max(1, augmentations))))


def _views_words(views: int, times: SearchTimes) -> str:
    return (
        f"{views} views of each image are used in turn, since the teacher takes {format_seconds(times.view)} for one "
        "view of all images; --set training.views=N sets another number"
    )


def full_trainings(times: SearchTimes, budget: Budget, epochs: float) -> float:
    """Return how many full trainings of the mean timed student fit into a budget if nothing else is trained."""
    count = times.count(budget, float(epochs), 1.0)
    return float("inf") if count is None else count


def fitting(times: SearchTimes, budget: Budget, ceiling: int) -> int:
    """Return the most epochs, up to ``ceiling``, of which :data:`WISHED` full trainings fit, else the fewest epochs."""
    lengths = [one for one in LADDER if one < ceiling] + [ceiling]
    return max((one for one in lengths if full_trainings(times, budget, one) >= WISHED), default=min(lengths))


def fitting_epochs(epochs: float, ceiling: int) -> int:
    """Return the same as :func:`fitting` for a budget of ``epochs`` in all."""
    lengths = [one for one in LADDER if one < ceiling] + [ceiling]
    return max((one for one in lengths if epochs / one >= WISHED), default=min(lengths))


def budget_problem(times: SearchTimes, budget: Budget, epochs: int) -> str:
    """Return a warning if fewer than :data:`HANDFUL` full trainings fit into the budget; empty if enough fit."""
    count = full_trainings(times, budget, epochs)
    if count >= HANDFUL:
        return ""
    fewer = max((one for one in range(1, epochs) if full_trainings(times, budget, one) >= HANDFUL), default=0)
    shorter = f", or about --epochs {fewer}" if fewer else ""
    how = "no full training" if count < 1 else f"only about {count:.0f} full trainings"
    more = _enough(times, budget, epochs)
    return (
        f"warning: {how} of {epochs} epochs of the mean student {'fits' if count < 1 else 'fit'} into {budget}, and "
        f"only full trainings are on the front: use about --budget {more}{shorter}"
    )


def _enough(times: SearchTimes, budget: Budget, epochs: int) -> Budget:
    """Return a larger budget into which :data:`HANDFUL` full trainings fit."""
    from dataclasses import replace

    from autodistill.engines.monitor.budget_warning import rounded

    larger = budget
    while full_trainings(times, larger, epochs) < HANDFUL:
        larger = replace(
            larger,
            seconds=None if larger.seconds is None else 1.25 * larger.seconds,
            device_seconds=None if larger.device_seconds is None else 1.25 * larger.device_seconds,
            epochs=None if larger.epochs is None else max(larger.epochs, float(HANDFUL * epochs)),
            trials=None if larger.trials is None else max(larger.trials, HANDFUL),
        )
    return replace(larger, seconds=None if larger.seconds is None else rounded(larger.seconds))


def _because(epochs: int, count: str, students: str, budget: str) -> str:
    return f"{epochs} epochs: {count} full trainings{students} fit into {budget}; --epochs sets another number"


def _with(config: StudyConfig, epochs: int) -> StudyConfig:
    return config if config.epochs == epochs else config.model_copy(update={"epochs": epochs})
