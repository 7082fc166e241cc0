"""How a front grew: its hypervolume after each COMPLETE trial (all its forms), against what had been spent by then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autodistill.core.records import TrialRecord
from autodistill.search.objectives.pareto import hypervolume
from autodistill.search.results.front import Front, HypervolumeBox


@dataclass(frozen=True)
class TrajectoryStep:
    """The state of a search when one more trial was COMPLETE.

    Attributes:
        seconds: of the study's own clock, over all its resumes.
        epochs: trained so far by all trials.
        trials: begun so far as a budget counts them, which is when they are first paused, or end.
        hypervolume_share: share of the box that the front dominated from then on.
        number: the trial.
        finished: trials of the front, dominated ones included, that were COMPLETE by then, this one included.
    """

    seconds: float
    epochs: float
    trials: float
    hypervolume_share: float
    number: int
    finished: int = 0


def trajectory(front: Front, scale: HypervolumeBox | None = None) -> list[TrajectoryStep]:
    """Steps in the order in which the trials ended; those that kept no record of the clock are left out.

    Args:
        front: the front with its dominated trials.
        scale: the box, ``None`` for the front's own; give one box to compare studies.
    """
    scale = scale or front.scale
    ended = sorted((t for t in (*front.trials, *front.others) if t.spent), key=_when)
    if scale is None or not ended:
        return []
    rows = Front(front.study, front.objectives, (), scale=scale).unit_losses([t.values for t in ended])
    reference = np.ones(rows.shape[1])
    kept = np.zeros((0, rows.shape[1]))
    share = 0.0
    steps: list[TrajectoryStep] = []
    for trial, row in zip(ended, rows, strict=True):
        if not (kept <= row).all(axis=1).any():  # only a point that nothing dominates changes the volume
            kept = np.vstack([kept[~(row <= kept).all(axis=1)], row])
            share = hypervolume(kept, reference)
        spent = trial.spent
        if steps and steps[-1].number == trial.number:
            steps.pop()  # another form of it, which came at the same moment
        books = spent["seconds"], spent.get("epochs", 0.0), spent.get("trials", 0)
        steps.append(TrajectoryStep(*books, share, trial.number, len(steps) + 1))
    return steps


def _when(trial: TrialRecord) -> tuple[float, float, int]:
    return trial.spent["seconds"], trial.spent.get("epochs", 0.0), trial.number


def share_at(steps: Sequence[TrajectoryStep], seconds: float) -> float:
    """Hypervolume share that had been reached after ``seconds``; 0 before the first step."""
    return max((step.hypervolume_share for step in steps if step.seconds <= seconds), default=0.0)
