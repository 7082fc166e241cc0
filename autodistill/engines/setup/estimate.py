"""What a search will roughly cost, and how long a full training may be: both before it starts.

A few students of the space and the teacher are timed for a few steps (``timing.py``). The figures are for planning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from autodistill.config.study_file import StudyConfig
from autodistill.core.budget import format_seconds
from autodistill.engines.setup.training_times import Prices, price
from autodistill.search.rungs.levels import Rungs
from autodistill.search.space.space import Space

SPREAD = 1.3
"""How far the number of trials may be from the likely one, as a factor: which students a search likes is not known."""

GOES_ON = 2 / 3
"""Share of the trials of a rung that the front sampler trains on, from about a dozen simulated searches (see
``tests/search/study/test_budget_simulated.py``). Other samplers train on one in eta."""


@dataclass(frozen=True)
class Forecast:
    """Figures of a search before it starts.

    Attributes:
        train_images: number of them; likewise ``val_images``.
        candidates: size of the space; ``None`` when infinite.
        epoch_seconds: fastest and slowest epoch of the timed students, on one worker, without the teacher.
        epochs_per_trial: expected epochs, early stopping included; ``epochs`` of a full training.
        survey_seconds: of what is not remembered from other studies; at most its share of the time; 0 without one.
        teacher_seconds: of a teacher that is trained on the spot; 0 for one that exists.
        preflight_seconds: of asking the teacher about the validation images.
        view_seconds: of asking the teacher about one view of all training images, which the first trial that sees it
            pays; 0 where that is never needed.
        cold_seconds: of all views that the trials will ask about and that no cache has, summed over workers.
        trials: fewest and most trials that the budget should hold; ``None`` without a budget.
        full_trainings: the same of trainings to the top rung, if nothing else was trained.
    """

    train_images: int
    val_images: int
    image_size: int
    classes: int
    candidates: int | None
    epoch_seconds: tuple[float, float]
    epochs_per_trial: float
    epochs: float
    survey_seconds: float
    teacher_seconds: float
    preflight_seconds: float
    view_seconds: float
    cold_seconds: float
    workers: int
    trials: tuple[int, int] | None
    full_trainings: tuple[int, int] | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The figures in sentences."""
        low, high = self.epoch_seconds
        out = [
            f"data: {self.train_images:,} training and {self.val_images:,} validation images of "
            f"{self.image_size} px, {self.classes} classes",
            f"space: {'infinitely many' if self.candidates is None else f'{self.candidates:,}'} candidates",
            f"one epoch: about {format_seconds(low)} to {format_seconds(high)} on one worker; "
            f"{self.epochs_per_trial:.1f} epochs per trial on average",
        ]
        before = [f"up to {format_seconds(self.survey_seconds)} for the survey"] if self.survey_seconds else []
        before += [f"{format_seconds(self.teacher_seconds)} for the teacher"] if self.teacher_seconds else []
        before += [f"{format_seconds(self.preflight_seconds)} to check it"] if self.preflight_seconds >= 1 else []
        if before:
            out.append(f"before the first trial: {', '.join(before)}")
        if self.view_seconds >= 1:
            out.append(
                f"teacher: about {format_seconds(self.view_seconds)} a view of all images, which is asked for once; "
                f"about {format_seconds(self.cold_seconds)} in all, shared by the workers"
            )
        if self.trials is not None and self.full_trainings is not None:
            out.append(
                f"within the budget: about {_range(self.trials)} trials, or {_range(self.full_trainings)} full "
                f"trainings of {self.epochs:g} epochs, {self.workers} at a time"
            )
            if not self.full_trainings[1]:
                out.append("only full trainings are on the front: give more budget, or fewer --epochs")
        return out


def print_nothing(words: str) -> None:
    """For callers that show no progress."""


def estimate(
    config: StudyConfig, space: Space, rungs: Rungs, *, say: Callable[[str], None] = print_nothing
) -> Forecast:
    """Time a few students of ``space`` on the study's images.

    Args:
        config: of the study.
        space: its space.
        rungs: its fidelities.
        say: told what is going on.

    Raises:
        AutodistillError: the data cannot be read, or no student of the space can be built.
    """
    from autodistill.training.data.datasets import load_images, warn_of_cut
    from autodistill.training.runtime.cache_folder import cache_folder

    prices = price(config, space, say=say)
    assert config.data is not None
    warn_of_cut(config.data, load_images(config.data, cache_folder().absolute()))
    return forecast(config, rungs, prices)


def forecast(config: StudyConfig, rungs: Rungs, prices: Prices) -> Forecast:
    """The figures of a search, given what things take."""
    budget, top = config.limits, float(rungs.levels[-1])
    share = GOES_ON if config.sampler == "front" else 1 / rungs.eta
    mean = expected_epochs(rungs, share)
    reports = sum(share**index for index in range(len(rungs.levels))) if rungs.stopping else 1.0
    likely = prices.count(budget, mean, reports)
    full = prices.count(budget, top, 1.0, trained=top)
    return Forecast(
        train_images=prices.train_images,
        val_images=prices.val_images,
        image_size=prices.image_size,
        classes=prices.classes,
        candidates=prices.candidates,
        epoch_seconds=(min(prices.epochs), max(prices.epochs)),
        epochs_per_trial=mean,
        epochs=top,
        survey_seconds=prices.survey,
        teacher_seconds=prices.teaching,
        preflight_seconds=prices.preflight,
        view_seconds=prices.view,
        cold_seconds=prices.cold(top, likely if likely is not None else len(prices.views)),
        workers=prices.workers,
        trials=None if likely is None else (round(likely / SPREAD), round(likely * SPREAD)),
        full_trainings=None if full is None else (int(full / SPREAD), int(full * SPREAD)),
    )


def expected_epochs(rungs: Rungs, share: float | None = None) -> float:
    """Epochs of an average trial when ``share`` of them go on from each rung; by default one in ``eta``."""
    if not rungs.stopping:
        return float(rungs.levels[-1])
    total, last, share = 0.0, 0, 1 / rungs.eta if share is None else share
    for index, level in enumerate(rungs.levels):
        total += (level - last) * share**index
        last = level
    return total


def _range(ends: tuple[int, int]) -> str:
    return " to ".join(dict.fromkeys(f"{end:,}" for end in ends))
