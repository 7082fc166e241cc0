"""What distillation gained in the search: a trial against the best trial of the same student without it.

The two may differ in their recipe (learning rate, weight decay, augmentation), and it is one run against the best of
several, so that the gain is rather too small than too large. Equal recipes are compared by ``verify``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autodistill.core.records import Objective, Params, State, TrialRecord

BASIS = "against the best undistilled run of the same student, whatever its training recipe"


@dataclass(frozen=True)
class Pairs:
    """Distilled trials beside the best undistilled one of their student.

    Attributes:
        won: pairs in which the distilled trial was better.
        equal: pairs in which both were as good, which is common where validation images are few.
        all: pairs that there are.
    """

    won: int
    equal: int
    all: int

    @staticmethod
    def of(gains: Iterable[float]) -> Pairs:
        """Counted from the gain of each pair."""
        known = list(gains)
        return Pairs(sum(gain > 0 for gain in known), sum(gain == 0 for gain in known), len(known))

    def line(self) -> str:
        """One sentence; empty where there are not several pairs."""
        if self.all < 2:
            return ""
        equal = f" and equal it in {self.equal:,}" if self.equal else ""
        return (
            f"distilled students beat their best undistilled run in {self.won:,} of {self.all:,} pairs{equal}; "
            "verify compares equal recipes"
        )


def distils(distillation: Params) -> bool:
    """Whether anything of the teacher is in the loss mix: its answers, or its embedding alone."""
    return any(distillation.get(name, "none") != "none" for name in ("loss", "embedding"))


def gain_over_undistilled(trial: TrialRecord, trials: Sequence[TrialRecord], objective: Objective) -> float | None:
    """How much better ``trial`` is than the best COMPLETE trial of the same student without distillation.

    ``None`` where there is no such trial, this one has no final values, or is itself undistilled. Positive is better.
    An int8 form is compared with int8 forms, since what the form costs in accuracy is no loss of distillation.
    """
    if not distils(trial.distillation) or objective.name not in trial.values:
        return None
    found = [
        _in_form(t, trial.variant).get(objective.name)
        for t in trials
        if t.state is State.COMPLETE and t.student == trial.student and not distils(t.distillation)
    ]
    plain = [value for value in found if value is not None]
    if not plain:
        return None
    return min(objective.loss(value) for value in plain) - objective.loss(trial.values[objective.name])


def _in_form(trial: TrialRecord, variant: str) -> Mapping[str, float]:
    """Final values of a trial in one of its forms; nothing where it has no such form."""
    if trial.variant == variant:
        return trial.values
    values: Mapping[str, float] = trial.variants.get(variant, {}).get("values", {})
    return values


def pairs(trials: Sequence[TrialRecord], objective: Objective) -> Pairs:
    """How often COMPLETE distilled trials are better than the best undistilled trial of their student."""
    complete = [t for t in trials if t.state is State.COMPLETE]
    found = (gain_over_undistilled(t, complete, objective) for t in complete)
    return Pairs.of(gain for gain in found if gain is not None)
