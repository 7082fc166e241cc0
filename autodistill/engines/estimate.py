"""What a search will roughly cost: a few students of the space are timed for a few steps, and nothing is written.

The figures are for planning. They leave out the teacher (made or read once) and the survey.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from autodistill.config import StudyConfig
from autodistill.engines.slots import make_slots
from autodistill.errors import InfeasibleError
from autodistill.search.budget import Budget, format_seconds
from autodistill.search.rungs import Rungs
from autodistill.search.space import Space

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
        epochs_per_trial: expected epochs, early stopping included.
        trials: fewest and most trials that the budget should hold; ``None`` without a budget.
    """

    train_images: int
    val_images: int
    image_size: int
    classes: int
    candidates: int | None
    epoch_seconds: tuple[float, float]
    epochs_per_trial: float
    workers: int
    trials: tuple[int, int] | None

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
        if self.trials is not None:
            out.append(
                f"trials within the budget: about {self.trials[0]:,} to {self.trials[1]:,}, {self.workers} at a time"
            )
        return out


def estimate(config: StudyConfig, space: Space, rungs: Rungs) -> Forecast:
    """Time a few students of ``space`` on the study's images.

    Raises:
        AutodistillError: the data cannot be read, or no student of the space can be built.
    """
    from autodistill.training.datasets import load

    assert config.data is not None
    with tempfile.TemporaryDirectory() as scratch:
        data = load(config.data, scratch)
        slots = make_slots(
            config.workers,
            devices_per_trial=config.devices_per_trial,
            slots_per_gpu=1 if config.slots_per_gpu == "auto" else config.slots_per_gpu,
        )
        batch = int(config.training.get("batch_size", 64))
        shape = {"image_size": data.image_size, "channels": data.channels, "num_classes": len(data.classes)}
        seconds = _step_seconds(space, shape, min(batch, len(data.train)), slots[0].device, slots[0].threads)
    epochs = tuple(one * max(1, len(data.train) // batch) for one in (min(seconds), max(seconds)))
    mean = expected_epochs(rungs)
    return Forecast(
        train_images=len(data.train),
        val_images=len(data.val),
        image_size=data.image_size,
        classes=len(data.classes),
        candidates=space.size(),
        epoch_seconds=(epochs[0], epochs[1]),
        epochs_per_trial=mean,
        workers=len(slots),
        trials=_trials(Budget.parse(config.budget), epochs, mean, len(slots)),
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


def _trials(budget: Budget, epochs: tuple[float, ...], mean: float, workers: int) -> tuple[int, int] | None:
    bounds = [(float(budget.trials),) * 2] if budget.trials is not None else []
    if budget.epochs is not None:
        bounds.append((budget.epochs / mean,) * 2)
    for seconds, share in ((budget.seconds, workers), (budget.device_seconds, 1)):
        if seconds is not None:
            bounds.append((seconds * share / (epochs[1] * mean), seconds * share / (epochs[0] * mean)))
    if not bounds:
        return None
    return max(1, int(min(low for low, _ in bounds))), max(1, int(min(high for _, high in bounds)))


def _step_seconds(space: Space, shape: Mapping[str, Any], batch: int, device: str, threads: int) -> list[float]:
    """Seconds of one training step of each of a few students drawn from the space."""
    import torch

    from autodistill.training.students import build

    rng = np.random.default_rng(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    out: list[float] = []
    try:
        for attempt in range(_TRIES):
            try:
                model = build(space.nest(space.sample(rng))["student"], **shape).to(device).train()
            except InfeasibleError:
                if attempt == _TRIES - 1 and not out:
                    raise
                continue
            images = torch.rand(batch, shape["channels"], shape["image_size"], shape["image_size"], device=device)
            out.append(_time_steps(model, images))
            if len(out) == _STUDENTS:
                break
    finally:
        torch.set_num_threads(before)
    return out


def _time_steps(model: Any, images: Any) -> float:
    """Seconds of the fastest of a few forward and backward passes, the first not counted."""
    import torch

    best = float("inf")
    for step in range(_STEPS + 1):
        start = time.perf_counter()
        model(images).square().mean().backward()
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        if step:
            best = min(best, time.perf_counter() - start)
    return best
