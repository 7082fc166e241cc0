"""How long a full training is where the user does not say: as long as a useful number of them fits into the budget.

The number is chosen when a study is made, from what the machine was timed to take, and is kept in its ``study.yaml``:
a study that goes on keeps it, with whatever budget. It stands between the rooms, as the search may not look into the
training room, where the timing is done.
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
    from autodistill.engines.setup.training_times import Prices
    from autodistill.search.space.space import Space

WISHED = 14
"""Full trainings of the quickest third of the students that should fit. A front of five to ten students takes about as
many trials that are trained to the end, and half of the work goes into trials that are stopped early. Slow students are
a minority of what a short search trains to the end, so they do not shorten the training of all."""

VIEW_SHARE = 0.04
"""Share of the work that the teacher's answers to one augmentation may take. Fewer views than epochs are used again in
turn, which costs little accuracy; a teacher that answers all day leaves no time for students."""

LEAST_VIEWS = 2

STEPS = 1500
"""Optimizer steps that a full training should have. On 3,068 photographs of 96 px, nine epochs with batches of 64 are
423 steps and gave a small residual network 0.633 of validation accuracy (one seed); 32 gave 0.692, 16 gave 0.710."""

FIRST_STEPS = 300
"""Optimizer steps before the lowest rung, where rungs are chosen with the epochs. After the 191 steps of one epoch, 26
of 33 students of 96 px photographs lay between 0.24 and 0.42, whatever they came to later (seed 0): a third of the time
went into a comparison that said nothing."""

LEAST_STEP = 0.01
"""Seconds below which a step of a smaller batch is mostly overhead, so that the batch stays as it is."""

LEAST_BATCH = 16

HANDFUL = 4
"""Full trainings without which a front says little."""

LADDER = (4, 6, 9, 12, 15, 18, 21, 24, 27, 30)
"""Lengths that are chosen from, so that a timing that differs a little gives the same: their thirds are rungs."""


@dataclass(frozen=True)
class Length:
    """How long a full training is.

    Attributes:
        config: with its epochs.
        said: one sentence for people; empty where there is nothing to say.
        seconds: that it took to find out.
        prices: what the parts of the search take; ``None`` where nothing was timed.
    """

    config: StudyConfig
    said: str = ""
    seconds: float = 0.0
    prices: Prices | None = None


def _silent(words: str) -> None:
    """Progress that is not shown."""


def settle(config: StudyConfig, space: Space, *, say: Callable[[str], None] | None = None) -> Length:
    """The configuration with the epochs of the top rung, and what is to be said of them.

    Args:
        config: of a new study; ``epochs`` is ``None`` where the user has named none.
        space: its space.
        say: told what is going on.
    """
    if config.data is None:
        return Length(config)
    ceiling = default_epochs(config)
    budget = config.limits
    if config.storage is not None:  # a database may know the study already, with other epochs than a new timing gives
        return Length(_with(config, config.epochs or ceiling))
    if config.epochs is None and (budget.epochs is not None and budget.seconds is None):
        epochs = chosen(budget.epochs, ceiling)
        fit = int(budget.epochs / epochs)
        return Length(_with(config, epochs), _because(epochs, f"about {fit}", "", str(budget)))
    timed = config.engine == "local" and (budget.seconds is not None or budget.device_seconds is not None)
    if not timed:
        return Length(_with(config, config.epochs or ceiling))
    from autodistill.engines.setup.training_times import price

    started = time.monotonic()
    try:
        prices = price(config, space, say=say or _silent)
    except InfeasibleError as error:
        config, took = _with(config, config.epochs or ceiling), time.monotonic() - started
        return Length(config, f"{config.epochs} epochs, whether or not enough trainings of them fit: {error}", took)
    except AutodistillError:  # what is wrong with the images is said where they are needed
        return Length(_with(config, config.epochs or ceiling))
    took = time.monotonic() - started
    if config.epochs is not None:
        return Length(config, warned(prices, budget, config.epochs), took, prices)
    views = views_for(prices, budget, config)
    limited = prices.with_views(views) if views else prices
    epochs = fitting(limited.quickest(), budget, ceiling)
    views = views if views < epochs else 0
    count = full_trainings(limited.quickest(), budget, epochs)
    said = _because(epochs, f"about {count:.0f}", " of the quickest third of the students", str(budget))
    said = said if epochs < ceiling else warned(limited, budget, epochs)
    if views:
        config = config.model_copy(update={"training": {**config.training, "views": views}})
        said = f"{said}. {_views_words(views, prices)}".removeprefix(". ")
    batch = batch_for(prices, epochs, config, space)
    if batch:
        config = config.model_copy(update={"training": {**config.training, "batch_size": batch}})
        steps = prices.train_images // batch * epochs
        said = f"{said}. Batches of {batch} images, for {steps:,} steps in a full training".removeprefix(". ")
    return Length(with_rungs(_with(config, epochs), prices.train_images), said, took, limited)


def with_rungs(config: StudyConfig, images: int) -> StudyConfig:
    """The configuration without the rungs that come before :data:`FIRST_STEPS`; as it is where the user names rungs."""
    from autodistill.search.rungs.levels import Rungs
    from autodistill.training.loop.recipe import Recipe

    if config.rungs != "auto" or config.epochs is None:
        return config
    steps = max(1, images // int(config.training.get("batch_size", Recipe.batch_size)))
    every = Rungs.geometric(config.epochs).levels
    levels = [level for level in every if level * steps >= FIRST_STEPS or level == every[-1]]
    return config if len(levels) == len(every) else config.model_copy(update={"rungs": {"levels": levels}})


def batch_for(prices: Prices, epochs: int, config: StudyConfig, space: Space) -> int:
    """The batch with which a short training on few images has :data:`STEPS`; 0 where the default has, or one is given.

    It is halved while a step of the quickest students stays above :data:`LEAST_STEP`.
    """
    from autodistill.training.loop.recipe import Recipe

    if "batch_size" in config.training or any(p.name == "train.batch_size" for p in space.parameters):
        return 0
    batch = Recipe.batch_size
    step = prices.quickest().mean * batch / prices.train_images
    while prices.train_images // batch * epochs < STEPS and batch > LEAST_BATCH and step / 2 >= LEAST_STEP:
        batch, step = batch // 2, step / 2
    return batch if batch < Recipe.batch_size else 0


def views_for(prices: Prices, budget: Budget, config: StudyConfig) -> int:
    """Views of an image for which the teacher takes :data:`VIEW_SHARE` of the work; 0 where there is no need to limit.

    A number that the user gives stays.
    """
    room = prices.room(budget)
    if "views" in config.training or not prices.view or prices.always or math.isinf(room):
        return 0
    return max(LEAST_VIEWS, int(VIEW_SHARE * room / prices.view))


def _views_words(views: int, prices: Prices) -> str:
    return (
        f"{views} views of each image, used in turn: the teacher takes {format_seconds(prices.view)} for a view of all "
        "images; --set training.views=N sets another number"
    )


def full_trainings(prices: Prices, budget: Budget, epochs: float) -> float:
    """Full trainings of the mean timed student that a budget holds when nothing else is trained."""
    count = prices.count(budget, float(epochs), 1.0)
    return float("inf") if count is None else count


def fitting(prices: Prices, budget: Budget, ceiling: int) -> int:
    """The most epochs, up to ``ceiling``, of which :data:`WISHED` full trainings fit; the fewest of the ladder else."""
    lengths = [one for one in LADDER if one < ceiling] + [ceiling]
    return max((one for one in lengths if full_trainings(prices, budget, one) >= WISHED), default=min(lengths))


def chosen(epochs: float, ceiling: int) -> int:
    """The same for a budget of so many epochs in all."""
    lengths = [one for one in LADDER if one < ceiling] + [ceiling]
    return max((one for one in lengths if epochs / one >= WISHED), default=min(lengths))


def warned(prices: Prices, budget: Budget, epochs: int) -> str:
    """What is to be said of epochs of which hardly any full training fits; empty where enough do."""
    count = full_trainings(prices, budget, epochs)
    if count >= HANDFUL:
        return ""
    fewer = max((one for one in range(1, epochs) if full_trainings(prices, budget, one) >= HANDFUL), default=0)
    shorter = f", or about --epochs {fewer}" if fewer else ""
    how = "no full training" if count < 1 else f"only about {count:.0f} full trainings"
    more = _enough(prices, budget, epochs)
    return (
        f"warning: {how} of {epochs} epochs of the mean student {'fits' if count < 1 else 'fit'} into {budget}, and "
        f"only full trainings are on the front: give it about --budget {more}{shorter}"
    )


def _enough(prices: Prices, budget: Budget, epochs: int) -> Budget:
    """The budget of which a handful of full trainings fit."""
    from dataclasses import replace

    from autodistill.engines.monitor.budget_warning import rounded

    larger = budget
    while full_trainings(prices, larger, epochs) < HANDFUL:
        larger = replace(
            larger,
            seconds=None if larger.seconds is None else 1.25 * larger.seconds,
            device_seconds=None if larger.device_seconds is None else 1.25 * larger.device_seconds,
            epochs=None if larger.epochs is None else max(larger.epochs, float(HANDFUL * epochs)),
            trials=None if larger.trials is None else max(larger.trials, HANDFUL),
        )
    return replace(larger, seconds=None if larger.seconds is None else rounded(larger.seconds))


def _because(epochs: int, count: str, whose: str, budget: str) -> str:
    return f"{epochs} epochs: {count} full trainings{whose} fit into {budget}; --epochs sets another number"


def _with(config: StudyConfig, epochs: int) -> StudyConfig:
    return config if config.epochs == epochs else config.model_copy(update={"epochs": epochs})
