"""The share of a search's work that was wasted.

The work of a trial was useful if the trial is on the front, or if it was *informative*:

* it is one of the first :data:`FIRST` trained trials, before which nothing was known; or
* at the last rung it reached, no earlier report dominated it: it set a mark that later trials, and the model's expected
  gain, are measured against.

All other work is waste: failures, and trials that were worse than what was known at their last rung. The second
condition refers to the time of the report, so that being overtaken later does not count against a trial.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from autodistill.core.budget import format_seconds
from autodistill.search.storage.trial_log import TrialLog

FIRST = 10
"""First trained trials, which always count as informative."""

TELLING = 20
"""Trained trials from which on the share is worth reporting, since the first ten always count as informative."""


@dataclass(frozen=True)
class Waste:
    """Work of a study, and the part of it that was wasted.

    Attributes:
        epochs: epochs trained by all trials.
        seconds: seconds of work of all trials, summed over workers.
        trials: number of trials that were trained.
        wasted_epochs: epochs of trials neither on the front nor informative.
        wasted_seconds: seconds of these trials.
        wasted_trials: number of these trials.
        untrained: number of trials that were refused before training or failed before their first rung.
    """

    epochs: float = 0.0
    seconds: float = 0.0
    trials: int = 0
    wasted_epochs: float = 0.0
    wasted_seconds: float = 0.0
    wasted_trials: int = 0
    untrained: int = 0

    @property
    def share(self) -> float:
        """Wasted share of the seconds if they are known, else of the epochs."""
        whole, part = (self.seconds, self.wasted_seconds) if self.seconds else (self.epochs, self.wasted_epochs)
        return part / whole if whole else 0.0

    @property
    def telling(self) -> bool:
        """Whether enough trials were trained for the share to be meaningful."""
        return self.trials >= TELLING

    def to_json(self) -> dict[str, float]:
        """Return plain values."""
        return {**vars(self), "share": self.share}

    def line(self) -> str:
        """Return a summary in one sentence."""
        if self.seconds:
            what = f"training time ({format_seconds(self.wasted_seconds)} of {format_seconds(self.seconds)})"
        else:
            what = f"epochs ({self.wasted_epochs:g} of {self.epochs:g})"
        others = f"; {self.untrained:,} more {_be(self.untrained)} not trained" if self.untrained else ""
        return (
            f"{self.share:.0%} of the {what} went into trials that were neither on the front nor informative: "
            f"{self.wasted_trials:,} of the {self.trials:,} that were trained{others}"
        )


def _be(count: int) -> str:
    return "was" if count == 1 else "were"


def waste_of(log: TrialLog, front: Collection[int]) -> Waste:
    """Return the waste of a study whose front has these trial numbers."""
    trials = log.read()
    trained = [t for t in trials if t.epochs > 0]
    first = {t.number for t in trained[:FIRST]}
    lost = []
    for trial in trained:
        last = log.attributes(trial.number).get(f"decision:{max(trial.rungs)}", {})
        if trial.number not in front and trial.number not in first and not last.get("unbeaten"):
            lost.append(trial)
    return Waste(
        epochs=sum(t.epochs for t in trained),
        seconds=sum(t.seconds for t in trained),
        trials=len(trained),
        wasted_epochs=sum(t.epochs for t in lost),
        wasted_seconds=sum(t.seconds for t in lost),
        wasted_trials=len(lost),
        untrained=len(trials) - len(trained),
    )
