"""The control arm: at least one trial in ten is trained without distillation, whatever the sampler prefers.

Otherwise a search that soon finds distillation useful would never measure its effect. If possible, a control is the
undistilled twin of a student on the front (same student, same recipe), so that the front can show what each student
gained by distillation. If there is no such student, the sampler chooses everything but the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution

from autodistill.core.records import Objective, TrialRecord
from autodistill.search.results.front import Front
from autodistill.search.space.space import Space

LOSS, NONE = "distillation.loss", "none"
ONE_IN = 10


def has_control(space: Space) -> bool:
    """Return whether the space lets a trial choose between distillation and none."""
    found = next((p.distribution for p in space.parameters if p.name == LOSS and not p.condition), None)
    offered = [str(choice) for choice in found.choices] if isinstance(found, CategoricalDistribution) else []
    return NONE in offered and len(offered) > 1


def due(trials: Sequence[TrialRecord]) -> bool:
    """Return whether the next trial must be a control."""
    controls = sum(1 for t in trials if t.distillation.get("loss") == NONE)
    return controls < (len(trials) + 1) // ONE_IN


def control(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective], values_of: Callable[[int], Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the parameter values of the next control; the sampler chooses those that are missing.

    Args:
        trials: all trials so far.
        objectives: axes of the front; the student best in the first objective gets its control first.
        values_of: returns the parameter values of a trial, given its number.
    """
    front = Front.of("", objectives, trials).trials
    twins = [(t.student, t.train) for t in trials if t.distillation.get("loss") == NONE]
    alone = [t for t in front if t.distillation.get("loss") != NONE and (t.student, t.train) not in twins]
    if not alone:
        return {LOSS: NONE}
    first = objectives[0]
    best = min(alone, key=lambda t: (first.loss(t.values[first.name]), t.number))
    kept = {name: value for name, value in values_of(best.number).items() if not name.startswith("distillation.")}
    return {**kept, LOSS: NONE}
