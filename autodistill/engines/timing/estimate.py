"""Estimate of what a search will take, before it starts.

A few students of the space and the teacher are timed for a few steps (``timing.py``). The figures are rough and meant
for planning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from autodistill.config.study_file import StudyConfig
from autodistill.core.budget import format_seconds
from autodistill.engines.timing.timing import ignore
from autodistill.engines.timing.training_times import SearchTimes, measure_times
from autodistill.search.rungs.levels import Rungs
from autodistill.search.space.space import Space

SPREAD = 1.3
"""Factor by which the number of trials may differ from the likely one, since the chosen students are not known yet."""

CONTINUE_SHARE = 2 / 3
"""Share of the trials of a rung that continue with the front sampler, from about a dozen simulated searches (see
``tests/search/study/test_budget_simulated.py``). With other samplers one in ``eta`` continues."""


@dataclass(frozen=True)
class Forecast:
    """Estimated figures of a search. All times are in seconds.

    Attributes:
        train_images: Number of training images.
        val_images: Number of validation images.
        image_size: Image side in pixels.
        classes: Number of classes.
        candidates: Size of the space; ``None`` if infinite.
        epoch_seconds: Fastest and slowest epoch of the timed students, on one worker, without the teacher.
        epochs_per_trial: Expected epochs of a trial, early stopping included.
        epochs: Epochs of a full training.
        survey_seconds: Time of the survey for what is not cached, at most its share of the budget; 0 without a survey.
        teacher_seconds: Time to train a teacher; 0 if one exists.
        preflight_seconds: Time of the teacher for the validation images.
        view_seconds: Time of the teacher for one view of all training images, spent by the first trial with this view;
            0 if never needed.
        cold_seconds: Time of the teacher for all views that no cache has, summed over workers.
        workers: Number of workers.
        trials: Fewest and most trials that should fit into the budget; ``None`` without a budget.
        full_trainings: The same for trainings to the top rung, if nothing else is trained.
        unlabelled_images: Number of unlabelled images.
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
    unlabelled_images: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the figures in sentences."""
        low, high = self.epoch_seconds
        out = [
            f"data: {self.train_images:,} training and {self.val_images:,} validation images of "
            f"{self.image_size} px, {self.classes} classes"
            + (f", {self.unlabelled_images:,} unlabelled images" if self.unlabelled_images else ""),
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
                f"teacher: about {format_seconds(self.view_seconds)} per view of all images, computed once and cached; "
                f"about {format_seconds(self.cold_seconds)} in all, shared by the workers"
            )
        if self.trials is not None and self.full_trainings is not None:
            out.append(
                f"within the budget: about {_range(self.trials)} trials, or {_range(self.full_trainings)} full "
                f"trainings of {self.epochs:g} epochs, {self.workers} at a time"
            )
            if not self.full_trainings[1]:
                out.append("only full trainings are on the front: use a larger budget, or fewer --epochs")
        return out


def estimate(config: StudyConfig, space: Space, rungs: Rungs, *, say: Callable[[str], None] = ignore) -> Forecast:
    """Time a few students of ``space`` on the study's images, and estimate the search.

    Args:
        config: Configuration of the study.
        space: Search space of the study.
        rungs: Rungs of the study.
        say: Called with each step of the work, in words.

    Raises:
        AutodistillError: The data cannot be read, or no student of the space can be built.
    """
    from autodistill.training.data.datasets import check_parts, load_images, warn_of_cut
    from autodistill.training.runtime.cache_folder import cache_folder

    times = measure_times(config, space, say=say)
    assert config.data is not None
    cache = cache_folder().absolute()
    data = load_images(config.data, cache)
    warn_of_cut(config.data, data)
    check_parts(config.data, data, cache)
    return forecast(config, rungs, times)


def forecast(config: StudyConfig, rungs: Rungs, times: SearchTimes) -> Forecast:
    """Estimate a search from measured times."""
    budget, top = config.limits, float(rungs.levels[-1])
    share = CONTINUE_SHARE if config.sampler == "front" else 1 / rungs.eta
    mean = expected_epochs(rungs, share)
    reports = sum(share**index for index in range(len(rungs.levels))) if rungs.stopping else 1.0
    likely = times.count(budget, mean, reports)
    full = times.count(budget, top, 1.0, trained=top)
    return Forecast(
        train_images=times.train_images,
        val_images=times.val_images,
        image_size=times.image_size,
        classes=times.classes,
        candidates=times.candidates,
        epoch_seconds=(min(times.epochs), max(times.epochs)),
        epochs_per_trial=mean,
        epochs=top,
        survey_seconds=times.survey,
        teacher_seconds=times.teaching,
        preflight_seconds=times.preflight,
        view_seconds=times.view,
        cold_seconds=times.cold(top, likely if likely is not None else len(times.views)),
        workers=times.workers,
        trials=None if likely is None else (round(likely / SPREAD), round(likely * SPREAD)),
        full_trainings=None if full is None else (int(full / SPREAD), int(full * SPREAD)),
        unlabelled_images=times.unlabelled_images,
    )


def expected_epochs(rungs: Rungs, share: float | None = None) -> float:
    """Return the mean epochs per trial if ``share`` of the trials continue from each rung (default: ``1 / eta``)."""
    if not rungs.stopping:
        return float(rungs.levels[-1])
    total, last, share = 0.0, 0, 1 / rungs.eta if share is None else share
    for index, level in enumerate(rungs.levels):
        total += (level - last) * share**index
        last = level
    return total


def _range(ends: tuple[int, int]) -> str:
    return " to ".join(dict.fromkeys(f"{end:,}" for end in ends))
