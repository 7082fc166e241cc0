"""Growth of a front: its hypervolume after each COMPLETE trial (with all its forms), against the spending so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autodistill.core.records import TrialRecord
from autodistill.search.objectives.pareto import hypervolume
from autodistill.search.results.front import Front, HypervolumeBox


@dataclass(frozen=True)
class TrajectoryStep:
    """State of a search after a further COMPLETE trial.

    Attributes:
        seconds: seconds on the study's own clock, over all its resumes.
        epochs: epochs trained so far by all trials.
        trials: trials counted so far by the budget, which counts them when they are first paused or end.
        hypervolume_share: share of the box that the front dominates.
        number: number of the trial.
        finished: COMPLETE trials so far, including this one and dominated ones.
    """

    seconds: float
    epochs: float
    trials: float
    hypervolume_share: float
    number: int
    finished: int = 0


def trajectory(front: Front, scale: HypervolumeBox | None = None) -> list[TrajectoryStep]:
    """Return one step per trial, in the order of their ends; trials without recorded spending are left out.

    Args:
        front: the front with its dominated trials.
        scale: the box; ``None`` for the front's own. To compare studies, use the same box for all.
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
        if not (kept <= row).all(axis=1).any():  # only a non-dominated point changes the volume
            kept = np.vstack([kept[~(row <= kept).all(axis=1)], row])
            share = hypervolume(kept, reference)
        spent = trial.spent
        if steps and steps[-1].number == trial.number:
            steps.pop()  # another form of the same trial, which ended at the same time
        spending = spent["seconds"], spent.get("epochs", 0.0), spent.get("trials", 0)
        steps.append(TrajectoryStep(*spending, share, trial.number, len(steps) + 1))
    return steps


def _when(trial: TrialRecord) -> tuple[float, float, int]:
    return trial.spent["seconds"], trial.spent.get("epochs", 0.0), trial.number


def share_at(steps: Sequence[TrajectoryStep], seconds: float) -> float:
    """Return the hypervolume share reached after ``seconds``; 0 before the first step."""
    return max((step.hypervolume_share for step in steps if step.seconds <= seconds), default=0.0)
