"""What distillation gained: a trial against the best trial of the same student without it."""

from __future__ import annotations

from collections.abc import Sequence

from autodistill.records import Objective, State, TrialRecord


def gain_over_twin(trial: TrialRecord, trials: Sequence[TrialRecord], objective: Objective) -> float | None:
    """How much better ``trial`` is than the best COMPLETE trial of the same student without distillation.

    ``None`` where there is no such twin, the trial has no final values, or is itself undistilled. Positive is better.
    """
    if trial.distillation.get("loss", "none") == "none" or objective.name not in trial.values:
        return None
    twins = [
        t.values[objective.name]
        for t in trials
        if t.state is State.COMPLETE and t.student == trial.student and t.distillation.get("loss") == "none"
    ]
    if not twins:
        return None
    return min(objective.loss(value) for value in twins) - objective.loss(trial.values[objective.name])
