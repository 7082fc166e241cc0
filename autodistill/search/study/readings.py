"""The reading side of a study: trials, front, spending and waste. It writes only the box of the hypervolume."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from autodistill.core.budget import Budget, Spent
from autodistill.core.records import Constraint, Objective, State, TrialRecord
from autodistill.core.wording import counted
from autodistill.search.objectives.within_teacher import PROMISES, Nearest, Promise, Reach, nearest, reach_of
from autodistill.search.results.front import Front, HypervolumeBox, last_values, propose_box
from autodistill.search.results.range_bounds import RangeBound, bounds_line, bounds_on_front
from autodistill.search.results.waste import Waste, waste_of
from autodistill.search.rungs.levels import Rungs
from autodistill.search.sampler.proposer import Proposer
from autodistill.search.space.space import Space
from autodistill.search.storage.history import StoredTrial
from autodistill.search.storage.trial_log import TrialLog
from autodistill.search.study.scheduler import Prospect, Scheduler
from autodistill.search.study.spending import Spending

TEACHER_NOTES = "teacher_notes"
"""User attribute of the study with the sentences of :meth:`teacher_notes`."""


class Readings:
    """Mixin with the read access to a study; see :class:`autodistill.search.study.study.Study`."""

    name: str
    directory: Path | None
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    rungs: Rungs
    space: Space
    config: Any
    optuna: optuna.Study
    budget: Budget
    under_way: Callable[[], float]
    _log: TrialLog
    _spending: Spending
    _proposer: Proposer
    _kept_back: float
    _scheduler: Scheduler
    _within: bool

    def __repr__(self) -> str:
        trials = self.trials()
        complete = sum(t.state is State.COMPLETE for t in trials)
        return f"<Study {self.name!r}: {counted(len(trials), 'trial')}, {complete:,} COMPLETE>"

    def trials(self) -> list[TrialRecord]:
        """Return all trials, sorted by number."""
        return self._log.read()

    def stored(self) -> Sequence[StoredTrial]:
        """Return all trials with their parameters as Optuna stores them, by number."""
        return self._log.stored()

    def front(self) -> Front:
        """Return the Pareto front of the COMPLETE trials that satisfy every constraint."""
        complete = self._log.complete()
        feasible = [t for t in complete if all(c.violation(last_values(t)) <= 0 for c in self.constraints)]
        return Front.of(
            self.name,
            self.objectives,
            feasible,
            scale=self.scale(),
            teacher=self.teacher_values(),
            directory=self.directory,
            reach=self.reach(),
        )

    def reach(self) -> Reach | None:
        """Return the accuracy from which students count, by constraint or default; ``None`` if neither applies."""
        return reach_of(self.objectives, self.constraints, self.teacher_values(), default=self._within)

    def nearest(self) -> Nearest | None:
        """Return the trials nearest to :meth:`reach` and the work still needed; ``None`` if a student meets it."""
        reach, complete = self.reach(), self._log.complete()
        found = nearest(complete, reach, self.constraints, levels=self.rungs.levels)
        if found is None or reach is None:
            return None
        trials = self.trials()
        paused = {t.number: max(t.rungs) for t in trials if t.reason == "PAUSED" and t.rungs}
        stored = [Promise(**one) for one in self.optuna.user_attrs.get(PROMISES, [])]
        top = self.rungs.levels[-1]
        promises = [
            replace(one, epochs=float(top - self.rungs.levels[paused[one.trial] - 1]))
            for one in stored
            if one.trial in paused
        ]
        return nearest(trials, reach, self.constraints, levels=self.rungs.levels, promises=promises)

    @property
    def spent(self) -> Spent:
        """Budget spent so far, over all resumes."""
        return self._spending.spent

    @property
    def devices(self) -> float:
        """Devices per trial in this or the last run; device time is seconds of work times this number."""
        return self._spending.devices

    @property
    def seconds_left(self) -> float:
        """Seconds left in the time budget, less those kept back; infinite without a time budget."""
        return self.budget.seconds_left(self.spent, kept_back=self._kept_back)

    @property
    def over(self) -> str:
        """Limit of the budget that is reached, in words, with running work included; empty if none is reached."""
        return self.budget.ended(self._spending.spent_with(self.under_way()), kept_back=self._kept_back)

    @property
    def time_is_up(self) -> bool:
        """Whether wall-clock or device time is spent. Running trainings are then stopped at once."""
        limits = replace(self.budget, epochs=None)
        return bool(limits.ended(self._spending.spent_with(self.under_way()), kept_back=self._kept_back))

    def prospect(self, rates: Mapping[int, float]) -> Prospect:
        """Return what could be trained in place of running trials; ``rates`` maps their numbers to s per epoch."""
        running = {t.number: (t.rungs.get(0, {}), rates[t.number]) for t in self.trials() if t.number in rates}
        return self._scheduler.prospect(self._proposer.known_costs(), running)

    def waste(self) -> Waste:
        """Return the share of training work that did not contribute to the front; see ``results/waste.py``."""
        return waste_of(self._log, [t.number for t in self.front().trials])

    def range_bounds(self) -> list[RangeBound]:
        """Return the bounds of the space on which at least half of the front lies; see ``results/range_bounds.py``."""
        return bounds_on_front(self.front(), self.space)

    def bounds_line(self) -> str:
        """Return :meth:`range_bounds` as a sentence; empty if there are none."""
        named = getattr(self.config, "space", None)
        return bounds_line(self.range_bounds(), named if isinstance(named, str) and named.isidentifier() else "")

    def scale(self) -> HypervolumeBox | None:
        """Return the hypervolume box: fixed once four students have values for all objectives, then only widened.

        ``None`` before that. The box is written to the storage only while the study runs.
        """
        stored, recorded = self.optuna.user_attrs.get("scale"), None
        scale: HypervolumeBox | None
        if stored is not None and all(map(math.isfinite, (*stored["ideal"], *stored["reference"]))):
            recorded = scale = HypervolumeBox(tuple(stored["ideal"]), tuple(stored["reference"]))
        else:
            seen = [*self._proposer.known_costs(), *(last_values(t) for t in self.trials())]
            scale = propose_box(self.objectives, seen) if len(seen) >= 4 else None
        if scale is None:
            return None
        scale = scale.holding(self.objectives, [t.values for t in self._log.complete()])
        if scale != recorded and self._spending.running:
            self.optuna.set_user_attr("scale", {"ideal": list(scale.ideal), "reference": list(scale.reference)})
        return scale

    def teacher_values(self) -> dict[str, float]:
        """Return the teacher's metrics as measured by the preflight; empty before the preflight."""
        return dict(self.optuna.user_attrs.get("teacher", {}))

    def teacher_notes(self) -> list[str]:
        """Return what the preflight said about the teacher without refusing it, one sentence each."""
        return [str(note) for note in self.optuna.user_attrs.get(TEACHER_NOTES, ())]
