"""How much of a search's work was for nothing.

A trial's work was worth it when the trial is on the front, or when it was *informative*:

* it is one of the first :data:`FIRST` trials that were trained, before which nothing was known; or
* at the last rung it reached, no earlier report beat it in every objective: it moved the mark that later trials, and
  the model's expected gain, are measured against.

Everything else is waste: failures, and trials that turned out worse than what was known at that rung. The second
condition looks at the moment of the report, so that being overtaken later does not count against a trial.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from autodistill.core.budget import format_seconds
from autodistill.search.storage.trial_log import TrialLog

FIRST = 10
TELLING = 20
"""Trained trials from which on the share is worth a line: the first ten are informative whatever they show."""


@dataclass(frozen=True)
class Waste:
    """Work of a study, and the part of it that was wasted.

    Attributes:
        epochs: trained by all trials; likewise ``seconds`` of work, summed over workers.
        wasted_epochs: by trials neither on the front nor informative; likewise ``wasted_seconds``.
        trials: that were trained at all; likewise ``wasted_trials``.
        untrained: trials that were not: refused before training, or failed before their first rung.
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
        """Of the seconds where they are known, else of the epochs."""
        whole, part = (self.seconds, self.wasted_seconds) if self.seconds else (self.epochs, self.wasted_epochs)
        return part / whole if whole else 0.0

    @property
    def telling(self) -> bool:
        """Whether so many trials were trained that the share says something of the search."""
        return self.trials >= TELLING

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return {**vars(self), "share": self.share}

    def line(self) -> str:
        """One sentence."""
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
    """The waste of a study whose front has these trial numbers."""
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
