"""Gain of distillation in the search: a trial against the best trial of the same student without distillation.

The two may differ in their recipe (learning rate, weight decay, augmentation). One run is compared with the best of
several, so the gain is underestimated rather than overestimated. ``verify`` compares equal recipes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autodistill.core.records import Objective, Params, State, TrialRecord

BASIS = "against the best undistilled run of the same student, whatever its training recipe"


@dataclass(frozen=True)
class Pairs:
    """Counts of pairs of a distilled trial and the best undistilled trial of its student.

    Attributes:
        won: pairs in which the distilled trial was better.
        equal: pairs with equal results, which are common with few validation images.
        all: all pairs.
    """

    won: int
    equal: int
    all: int

    @staticmethod
    def of(gains: Iterable[float]) -> Pairs:
        """Count pairs, given the gain of each."""
        known = list(gains)
        return Pairs(sum(gain > 0 for gain in known), sum(gain == 0 for gain in known), len(known))

    def line(self) -> str:
        """Return a summary in one sentence; empty with fewer than two pairs."""
        if self.all < 2:
            return ""
        equal = f" and equal it in {self.equal:,}" if self.equal else ""
        return (
            f"distilled students beat their best undistilled run in {self.won:,} of {self.all:,} pairs{equal}; "
            "verify compares equal recipes"
        )


def distils(distillation: Params) -> bool:
    """Return whether the loss mix uses the teacher, by its outputs or its embedding."""
    return any(distillation.get(name, "none") != "none" for name in ("loss", "embedding"))


class UndistilledRuns:
    """The best results without distillation of each student, for the gains of many trials.

    Args:
        trials: trials of a study.
    """

    def __init__(self, trials: Iterable[TrialRecord]) -> None:
        self._runs: dict[object, list[TrialRecord]] = {}
        self._best: dict[tuple[object, str, Objective], float | None] = {}
        for trial in trials:
            if trial.state is State.COMPLETE and not distils(trial.distillation):
                self._runs.setdefault(_key(trial.student), []).append(trial)

    def best(self, student: Params, variant: str, objective: Objective) -> float | None:
        """Return the least loss of a student in one form; ``None`` if it was not trained without distillation."""
        key = (_key(student), variant, objective)
        if key not in self._best:
            found = [_in_form(t, variant).get(objective.name) for t in self._runs.get(key[0], ())]
            self._best[key] = min((objective.loss(value) for value in found if value is not None), default=None)
        return self._best[key]


def _key(value: object) -> object:
    """Return something that can be hashed and is equal for equal settings."""
    if isinstance(value, Mapping):
        return frozenset((name, _key(one)) for name, one in value.items())
    return tuple(map(_key, value)) if isinstance(value, (list, tuple)) else value


def gain_over_undistilled(
    trial: TrialRecord, trials: Sequence[TrialRecord] | UndistilledRuns, objective: Objective
) -> float | None:
    """Return how much better ``trial`` is than the best COMPLETE trial of the same student without distillation.

    The gain is positive if ``trial`` is better. It is ``None`` if there is no such other trial, or if ``trial`` has no
    final values or is itself undistilled. An int8 form is compared with int8 forms, since the accuracy that the form
    costs is no effect of distillation.
    """
    if not distils(trial.distillation) or objective.name not in trial.values:
        return None
    runs = trials if isinstance(trials, UndistilledRuns) else UndistilledRuns(trials)
    best = runs.best(trial.student, trial.variant, objective)
    return None if best is None else best - objective.loss(trial.values[objective.name])


def _in_form(trial: TrialRecord, variant: str) -> Mapping[str, float]:
    """Return the final values of a trial in one of its forms; empty if it has no such form."""
    if trial.variant == variant:
        return trial.values
    values: Mapping[str, float] = trial.variants.get(variant, {}).get("values", {})
    return values


def pairs(trials: Sequence[TrialRecord], objective: Objective) -> Pairs:
    """Count how often COMPLETE distilled trials are better than the best undistilled trial of their student."""
    complete = [t for t in trials if t.state is State.COMPLETE]
    runs = UndistilledRuns(complete)
    found = (gain_over_undistilled(t, runs, objective) for t in complete)
    return Pairs.of(gain for gain in found if gain is not None)
