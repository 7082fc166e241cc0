"""The choice of the next step in a study: an interrupted trial, a paused trial or a new candidate.

It combines the rung rule with the deadline. A trial is started or continued only if it is expected to reach the top
rung within the remaining budget, since only the top rung is on the front. Before the time left becomes too short for
the best paused trials, one *finalist* per worker, these continue instead of new candidates. (On LCBench, reserving
time for more finalists cost more new candidates than it was worth.)

Avoiding an empty front has priority at the end. While no trial has reached the top rung, the most promising paused
trial continues once half of the budget is gone, or once the remaining budget is just enough for the trial nearest to
the top. If none is expected to finish in time, the nearest continues all the same: predictions have errors, and an
idle worker gains nothing.

The remaining epochs or device time are those that are neither spent nor committed to running trials. A running trial
commits the work to its next rung, or to the top rung if it is a finalist or no rung rule stops it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autodistill.core.budget import Budget, Spent, format_seconds
from autodistill.core.records import Candidate, TrialRecord
from autodistill.search.rungs.epoch_time import EpochTime, Known
from autodistill.search.rungs.levels import RungDecision, Rungs
from autodistill.search.rungs.promotion import Action, PausedTrial
from autodistill.search.rungs.teacher_time import views_key
from autodistill.search.study.rung_rules import Rule

MAX_PAUSED = 32
"""Paused trials that keep their checkpoints; beyond this number the least promising are stopped for good."""

SLACK = 8  # excess over MAX_PAUSED that is tolerated, so that trials are not sorted at every pause
SAFETY = 1.25
"""Factor on the predicted time of the first trial that reaches the top rung, to allow for prediction errors."""

LATE = 0.5
"""Share of the budget after which bringing a first trial to the top rung has priority over new candidates."""

TOO_LITTLE = "too little is left of the budget for another trial to reach the top rung"


@dataclass(frozen=True)
class RemainingBudget:
    """What may be spent now.

    Attributes:
        seconds: seconds of work on one trial that wall-clock and device time allow; infinite without such limits.
        epochs: epochs left; infinite without such a limit.
        closed: why no new candidate may be started; empty if one may.
        few: if ``closed``, continue only trials worth their work (the budget limits trials), not all that may gain.
        busy: number of other running trials.
        quickest: while no trial has reached the top rung, seconds of a full training of the quickest known student
            (infinite if nothing is known); ``None`` once a trial has reached it.
        gone: share of the budget that is spent, ignoring its limit on trials.
    """

    seconds: float = math.inf
    epochs: float = math.inf
    closed: str = ""
    few: bool = True
    busy: int = 0
    quickest: float | None = None
    gone: float = 0.0

    @staticmethod
    def of(
        budget: Budget,
        spent: Spent,
        kept_back: float,
        *,
        starting: int,
        busy: int,
        exhausted: str,
        committed: tuple[float, float] = (0.0, 0.0),
        devices: float = 1.0,
        quickest: float | None = None,
    ) -> RemainingBudget:
        """Return what is left of a budget.

        Args:
            budget: limits of the study.
            spent: spending so far.
            kept_back: seconds reserved for other work.
            starting: running trials that the budget has not counted yet.
            busy: number of running trials, without the one that is decided on.
            exhausted: why the space offers no new candidate; empty if it does.
            committed: seconds of work and epochs that running trials will still take.
            devices: devices per trial.
            quickest: see the attribute.
        """
        seconds = budget.seconds_left(spent, kept_back=kept_back)
        if budget.device_seconds is not None:
            left = (budget.device_seconds - spent.device_seconds) / devices
            seconds = min(seconds, max(0.0, left - committed[0]))
        epochs = math.inf if budget.epochs is None else max(0.0, budget.epochs - spent.epochs - committed[1])
        full = budget.full(spent.trials + starting)
        gone = budget.share(spent, kept_back=kept_back)
        return RemainingBudget(
            seconds, epochs, full or exhausted, few=bool(full), busy=busy, quickest=quickest, gone=gone
        )


@dataclass(frozen=True)
class NextStep:
    """What to do next.

    Attributes:
        trial: number of the trial to continue; ``None`` for a new candidate.
        why: reason, in words.
        nothing: neither a trial nor a new candidate; ``why`` has the reason.
        final: the rest of the budget is reserved for finalists, of which this trial is one; it continues to the top.
    """

    trial: int | None
    why: str
    nothing: bool = False
    final: bool = False


@dataclass(frozen=True)
class Prospect:
    """Predicted times of trainings that could run instead of the present ones; ``None`` if unknown.

    Attributes:
        epochs: epochs of a full training.
        epoch: seconds of one epoch of the quickest student with known costs.
        paused: seconds to the top rung of the paused trial that is nearest to it.
    """

    epochs: float
    epoch: float | None = None
    paused: float | None = None


class Scheduler:
    """Paused and interrupted trials, and the order in which they and new candidates are run.

    Args:
        rungs: fidelities.
        epoch_time: predicted seconds per epoch; an empty predictor by default.

    Attributes:
        rule: rung rule; ``None`` if every trial trains to the top.
        paused: number of each paused trial to its last rung.
        interrupted: trials to continue first.
    """

    def __init__(self, rungs: Rungs, epoch_time: EpochTime | None = None) -> None:
        self._rungs, self.epoch_time = rungs, epoch_time or EpochTime()
        self.rule: Rule | None = None
        self.paused: dict[int, int] = {}
        self.interrupted: list[TrialRecord] = []
        self._costs: dict[int, Mapping[str, float]] = {}
        self._finalists: set[int] = set()
        self._decided: NextStep | None = None

    # -- what happened ---------------------------------------------------------------------------------------------

    def pause(self, number: int, rung: int, costs: Mapping[str, float]) -> None:
        """Add a trial that is paused at ``rung``."""
        self.paused[number] = rung
        self._finalists.discard(number)
        self._costs[number] = costs

    def take(self, number: int) -> None:
        """Remove a trial from the paused ones, because it continues."""
        del self.paused[number]

    def changed(self) -> None:
        """Discard the cached decision, because the state has changed."""
        self._decided = None

    def excess(self) -> dict[int, str]:
        """Return the paused trials to stop for good, with reasons, so that checkpoints and open trials stay few."""
        if self.rule is None or len(self.paused) <= MAX_PAUSED + SLACK:
            return {}
        known = {n: self.rule.standing(n) for n in self.paused}
        if not any(known.values()):
            return {}
        order = sorted(sorted(self.paused), key=lambda n: _worth(known[n]), reverse=True)
        return dict.fromkeys(order[MAX_PAUSED:], f"{MAX_PAUSED} other paused trials promise more")

    # -- what to do ------------------------------------------------------------------------------------------------

    def choose(self, remaining: RemainingBudget, *, queued: bool) -> NextStep:
        """Return the next step; ``queued``: candidates enqueued by the user wait to be proposed."""
        for record in self.interrupted:
            if self._fits(
                self._to_next(record.number, max(record.rungs, default=0), record.rungs.get(0, {})), remaining
            ):
                return NextStep(record.number, "was interrupted")
        if queued and not remaining.closed:
            return NextStep(None, "given by the user")
        step, self._decided = self._decided or self._decide(self.paused, remaining), None
        return self._noted(step)

    def committed(self, running: Iterable[tuple[int, int, Mapping[str, float]]]) -> tuple[float, float]:
        """Return the seconds of work (0 if unpredicted) and epochs that running trials take until they can be stopped.

        Args:
            running: number, last rung and known costs of each running trial.
        """
        works = [self._to_next(*trial) for trial in running]
        return sum(seconds for seconds, _ in works), sum(epochs for _, epochs in works)

    def after(self, number: int, rung: int, costs: Mapping[str, float], remaining: RemainingBudget) -> RungDecision:
        """Decide whether a trial that has just reported ``rung`` continues."""
        assert self.rule is not None
        self._costs[number] = costs
        verdict = self.rule.verdict(number, rung)
        fits = self._fits(self._to_top(number, rung), remaining)
        late = remaining.quickest is not None and remaining.gone >= LATE
        if (
            verdict is not None
            and fits
            and (verdict.go_on or not late)
            and (verdict.go_on or not remaining.closed or remaining.few)
        ):
            words = "goes on from" if verdict.go_on else "stopped at"
            return RungDecision(verdict.go_on, f"{words} {self._at(rung)}: {verdict.why}", verdict.final)
        step = self._decide({**self.paused, number: rung}, remaining)
        if step.trial == number:
            return RungDecision(True, f"goes on from {self._at(rung)}: {self._noted(step).why}")
        self._decided = step
        return RungDecision(False, self._why_paused(number, rung, step, remaining))

    def too_slow(
        self, costs: Mapping[str, float], remaining: RemainingBudget, candidate: Candidate | None = None
    ) -> str:
        """Return why a student cannot reach the top rung in the time left; empty if it can or nothing is known.

        Args:
            costs: known costs of the student.
            remaining: what may be spent.
            candidate: candidate whose teacher outputs may not be cached; their time is added if it is given.
        """
        family = "" if candidate is None else str(candidate.student.get("family", ""))
        rate, top = self.epoch_time.predict(costs, family), self._rungs.levels[-1]
        needed = 0.0 if rate is None else rate * top
        if candidate is not None and needed:
            needed += self.epoch_time.uncached.ahead(views_key(candidate.distillation, candidate.train), 0.0, top)
        if needed <= remaining.seconds:
            return ""
        return f"needs about {format_seconds(needed)} to the top rung, {format_seconds(remaining.seconds)} are left"

    def quickest(self, students: Sequence[Mapping[str, float]]) -> float:
        """Return the seconds of a full training of the quickest student, by known costs; infinite if unknown."""
        rate = self.epoch_time.least(students, {})
        return math.inf if rate is None else rate * self._rungs.levels[-1]

    def prospect(self, students: Sequence[Mapping[str, float]], running: Mapping[int, Known]) -> Prospect:
        """Return what could be trained instead of the running trials.

        Args:
            students: known costs of all known students.
            running: known costs and seconds per epoch of each running trial.
        """
        to_top = [self._to_top(n, rung)[0] for n, rung in self.paused.items()]
        least = self.epoch_time.least(students, running)
        return Prospect(self._rungs.levels[-1], least, min(filter(None, to_top), default=None))

    # -- private ---------------------------------------------------------------------------------------------------

    def _decide(self, waiting: Mapping[int, int], remaining: RemainingBudget) -> NextStep:
        waiting = dict(sorted(waiting.items()))  # a resumed study pauses its trials in another order
        closed = remaining.closed or ("" if self._rungs.levels[-1] <= remaining.epochs else TOO_LITTLE)
        if self.rule is None:  # every trial trains to the top
            return NextStep(None, closed or "a new candidate", nothing=bool(closed))
        action = self.rule.next(waiting, self._left(remaining))
        if (
            remaining.quickest is not None
            and (first := self._first_to_top(action, waiting, remaining, closed)) is not None
        ):
            return first
        final = self._fitting(self.rule.finalists(waiting, few=remaining.few), waiting, remaining)
        if closed:
            why = f"may still add to the front; {closed}"
            return NextStep(final[0], why, final=True) if final else NextStep(None, closed, True)
        if action is None:
            if math.isinf(self._left(remaining)):
                return NextStep(None, "a new candidate")
            why = "fits into what is left"
            return NextStep(final[0], why, final=True) if final else NextStep(None, TOO_LITTLE, True)
        if action.trial is not None:
            if self._fitting([action.trial], waiting, remaining):
                return NextStep(action.trial, action.why)
        elif not self._leaves_too_little(final[: remaining.busy + 1], waiting, remaining, action):
            return NextStep(None, action.why)
        why = "the rest of the budget is kept for the finalists"
        return NextStep(final[0], why, final=True) if final else NextStep(None, action.why)

    def _noted(self, step: NextStep) -> NextStep:
        if step.final and step.trial is not None:
            self._finalists.add(step.trial)
        return step

    def _first_to_top(
        self, action: Action | None, waiting: Mapping[int, int], remaining: RemainingBudget, closed: str
    ) -> NextStep | None:
        """Return the paused trial to bring to the top first; ``None`` while there is time for other candidates.

        Args:
            action: choice of the rung rule.
            waiting: number of each paused trial to its last rung.
            remaining: what may be spent.
            closed: why no new candidate may be started; empty if one may.
        """
        assert self.rule is not None
        promising = dict.fromkeys([*self.rule.finalists(waiting, few=False), *waiting])
        works = {n: self._to_top(n, waiting[n]) for n in promising}
        seconds = {n: work[0] for n, work in works.items() if work[1] <= remaining.epochs}
        if not seconds:
            return None
        safe = [n for n in seconds if SAFETY * seconds[n] <= remaining.seconds]
        new, quickest = math.inf, remaining.quickest if remaining.quickest is not None else math.inf
        if action is not None and action.trial is None and not closed:
            new = SAFETY * quickest if math.isfinite(quickest) else 0.0
        if not safe and new <= remaining.seconds:
            return None  # another student may be quick enough
        needed = SAFETY * min(seconds.values())
        scarce = remaining.seconds - self._first_rung(action) < min(needed, max(new, SAFETY * quickest))
        if not (remaining.gone >= LATE or scarce or math.isinf(new)):
            return None
        chosen = safe or sorted(seconds, key=seconds.__getitem__)
        return NextStep(chosen[0], "no trial has come to the top yet", final=True)

    def _first_rung(self, action: Action | None) -> float:
        """Return the seconds of the first rung of a new candidate; 0 if nothing is known."""
        known = action is not None and action.epoch > 0 and self.epoch_time.ready
        rate = action.epoch if action is not None and known else self.epoch_time.typical
        return self._rungs.levels[0] * (rate or 0.0)

    def _leaves_too_little(
        self, finalists: Sequence[int], waiting: Mapping[int, int], remaining: RemainingBudget, action: Action | None
    ) -> bool:
        """Return whether the first rung of a new candidate would leave too little for one finalist per worker."""
        if not finalists:
            return False
        works = [self._to_top(n, waiting[n]) for n in finalists]
        seconds = sum(s for s, _ in works) / (remaining.busy + 1)
        epochs = sum(e for _, e in works)
        needed = max(seconds, *(s for s, _ in works))
        return (
            remaining.seconds - self._first_rung(action) < needed or remaining.epochs - self._rungs.levels[0] < epochs
        )

    def _fitting(self, numbers: Sequence[int], waiting: Mapping[int, int], remaining: RemainingBudget) -> list[int]:
        return [n for n in numbers if self._fits(self._to_top(n, waiting[n]), remaining)]

    def _to_top(self, number: int, rung: int) -> tuple[float, float]:
        """Return the seconds (0 if unknown) and epochs of a trial from its rung to the top."""
        return self._work(number, rung, self._rungs.levels[-1], self._costs.get(number, {}))

    def _to_next(self, number: int, rung: int, costs: Mapping[str, float]) -> tuple[float, float]:
        """Return the seconds and epochs of a trial to the next rung at which it can be stopped."""
        last = self._rungs.top - 1
        stops = last if self.rule is None or number in self._finalists else min(rung, last)
        return self._work(number, rung, self._rungs.levels[stops], costs)

    def _work(self, number: int, rung: int, level: float, costs: Mapping[str, float]) -> tuple[float, float]:
        done = self._rungs.levels[rung - 1] if rung else 0
        seconds = (level - done) * (self.epoch_time.of(number, costs) or 0.0)
        return seconds + self.epoch_time.uncached.ahead_of(number, done, level), float(level - done)

    @staticmethod
    def _fits(work: tuple[float, float], remaining: RemainingBudget) -> bool:
        return work[0] <= remaining.seconds and work[1] <= remaining.epochs

    def _left(self, remaining: RemainingBudget) -> float:
        """Return what is left in the unit of the sampler's work: seconds if time is limited, else epochs."""
        if math.isfinite(remaining.seconds):
            return remaining.seconds if self.epoch_time.ready else math.inf
        return remaining.epochs

    def _at(self, rung: int) -> str:
        return f"rung {rung} ({self._rungs.levels[rung - 1]} of {self._rungs.levels[-1]} epochs)"

    def _why_paused(self, number: int, rung: int, step: NextStep, remaining: RemainingBudget) -> str:
        assert self.rule is not None
        standing = self.rule.standing(number)
        if step.nothing or standing is None:
            other = step.why
        else:
            other = "a new candidate promises more" if step.trial is None else f"trial {step.trial} promises more"
        if standing is None:
            return f"stopped at {self._at(rung)}: {other}"
        seconds, epochs = self._to_top(number, rung)
        price = format_seconds(seconds) if seconds and math.isfinite(remaining.seconds) else f"{epochs:g} epochs"
        return f"stopped at {self._at(rung)}: may add {standing.gain:.2g} hypervolume for {price} more; {other}"


def _worth(standing: PausedTrial | None) -> tuple[float, float]:
    return (-1.0, 0.0) if standing is None else (standing.index, standing.gain)
