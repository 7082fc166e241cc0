"""What a search will roughly cost: a few students of the space are timed for a few steps, and nothing is written.

The figures are for planning: the fastest steps that were seen, on a machine that does nothing else.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autodistill.config import StudyConfig
from autodistill.engines.pool import SURVEY_SECONDS, has_survey, pool_size
from autodistill.engines.slots import Slot, devices_each, make_slots
from autodistill.errors import InfeasibleError
from autodistill.search.budget import Budget, format_seconds
from autodistill.search.objectives import resolve
from autodistill.search.rungs import Rungs
from autodistill.search.space import Space

if TYPE_CHECKING:
    from autodistill.training.datasets import ImageData

_STUDENTS = 3
_STEPS = 3
_TRIES = 20


@dataclass(frozen=True)
class Forecast:
    """Figures of a search before it starts.

    Attributes:
        train_images: number of them; likewise ``val_images``.
        candidates: size of the space; ``None`` when infinite.
        epoch_seconds: fastest and slowest epoch of the timed students, on one worker.
        epochs_per_trial: expected epochs, early stopping included; ``epochs`` of a full training.
        survey_seconds: rather too many than too few, as if nothing was remembered from other studies; 0 without one.
        teacher_seconds: of a teacher that is trained on the spot; 0 for one that exists.
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
        if before:
            out.append(f"before the first trial: {', '.join(before)}")
        if self.trials is not None and self.full_trainings is not None:
            out.append(
                f"within the budget: about {_range(self.trials)} trials, or {_range(self.full_trainings)} full "
                f"trainings of {self.epochs:g} epochs, {self.workers} at a time"
            )
            if not self.full_trainings[1]:
                out.append("only full trainings are on the front: give more budget, or fewer --epochs")
        return out


def estimate(config: StudyConfig, space: Space, rungs: Rungs) -> Forecast:
    """Time a few students of ``space`` on the study's images.

    Raises:
        AutodistillError: the data cannot be read, or no student of the space can be built.
    """
    from autodistill.teacher_choice import accepts_weak
    from autodistill.training.datasets import check_files, load
    from autodistill.training.preflight import check_enough

    assert config.data is not None
    with tempfile.TemporaryDirectory() as scratch:
        check_files(config.data, scratch)
        data = load(config.data, scratch)
        if not accepts_weak(config.teacher):
            check_enough(data)
        slots = make_slots(
            config.workers,
            devices_per_trial=config.devices_per_trial,
            slots_per_gpu=1 if config.slots_per_gpu == "auto" else config.slots_per_gpu,
        )
        batch = int(config.training.get("batch_size", 64))
        shape = {"image_size": data.image_size, "channels": data.channels, "num_classes": len(data.classes)}
        batch = min(batch, len(data.train))
        with _threads(slots[0].threads):
            seconds = _step_seconds(space, shape, batch, slots[0].device)
            teacher = _teacher_seconds(config, data, shape, batch, slots[0].device)
    steps = max(1, len(data.train) // batch) + len(data.val) / batch / 3  # validation goes forward only
    epochs = tuple(one * steps for one in (min(seconds), max(seconds)))
    mean, budget = expected_epochs(rungs), Budget.parse(config.budget)
    surveyed = has_survey(config.survey, resolve(config.objectives))
    survey = pool_size(config.survey, budget.seconds) * SURVEY_SECONDS if surveyed else 0.0
    if budget.seconds is not None:
        budget = replace(budget, seconds=max(0.0, budget.seconds - survey - teacher))
    return Forecast(
        train_images=len(data.train),
        val_images=len(data.val),
        image_size=data.image_size,
        classes=len(data.classes),
        candidates=space.size(),
        epoch_seconds=(epochs[0], epochs[1]),
        epochs_per_trial=mean,
        epochs=rungs.levels[-1],
        survey_seconds=survey,
        teacher_seconds=teacher,
        workers=len(slots),
        trials=_trials(budget, epochs, mean, slots),
        full_trainings=_trials(budget, epochs, rungs.levels[-1], slots),
    )


def expected_epochs(rungs: Rungs) -> float:
    """Epochs of an average trial when one in ``eta`` goes on from each rung."""
    if not rungs.stopping:
        return float(rungs.levels[-1])
    total, last = 0.0, 0
    for index, level in enumerate(rungs.levels):
        total += (level - last) / rungs.eta**index
        last = level
    return total


def _trials(budget: Budget, epochs: tuple[float, ...], mean: float, slots: Sequence[Slot]) -> tuple[int, int] | None:
    bounds = [(float(budget.trials),) * 2] if budget.trials is not None else []
    if budget.epochs is not None:
        bounds.append((budget.epochs / mean,) * 2)
    for seconds, share in ((budget.seconds, len(slots)), (budget.device_seconds, 1 / devices_each(slots))):
        if seconds is not None:
            bounds.append((seconds * share / (epochs[1] * mean), seconds * share / (epochs[0] * mean)))
    if not bounds:
        return None
    return int(min(low for low, _ in bounds)), int(min(high for _, high in bounds))


def _range(ends: tuple[int, int]) -> str:
    return " to ".join(dict.fromkeys(f"{end:,}" for end in ends))


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _step_seconds(space: Space, shape: Mapping[str, Any], batch: int, device: str) -> list[float]:
    """Seconds of one training step of each of a few students drawn from the space."""
    rng, out = np.random.default_rng(0), []
    for attempt in range(_TRIES):
        try:
            out.append(_time_steps(space.nest(space.sample(rng))["student"], shape, batch, device))
        except InfeasibleError:
            if attempt == _TRIES - 1 and not out:
                raise
        if len(out) == _STUDENTS:
            break
    return out


def _teacher_seconds(config: StudyConfig, data: ImageData, shape: Mapping[str, Any], batch: int, device: str) -> float:
    """Of training a teacher on the spot; 0 for one that exists, and for an architecture of the user's own."""
    from autodistill.training.teach import default_architecture, default_epochs

    options = config.teacher.options
    if config.teacher.source != "auto" or "model" in options:
        return 0.0
    pretrained = bool(options.get("pretrained", False))
    epochs = options.get("epochs", default_epochs(len(data.train), data.image_size, pretrained=pretrained))
    step = _time_steps(default_architecture(data.image_size), shape, batch, device)
    return float(epochs * step * max(1, len(data.train) // batch))


def _time_steps(student: Mapping[str, Any], shape: Mapping[str, Any], batch: int, device: str) -> float:
    """Seconds of the fastest of a few forward and backward passes, the first not counted."""
    import torch

    from autodistill.training.students import build

    model = build(student, **shape).to(device).train()
    images = torch.rand(batch, shape["channels"], shape["image_size"], shape["image_size"], device=device)
    best = float("inf")
    for step in range(_STEPS + 1):
        start = time.perf_counter()
        model(images).square().mean().backward()
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        if step:
            best = min(best, time.perf_counter() - start)
    return best
