"""What comes next in a study: an interrupted trial, a paused one, or a new candidate; and who waits for what.

It joins the rung rule with the deadline. Nothing is started or continued that is not expected to reach the top rung
with what is left of the budget, since only the top rung is on the front; and before the time left becomes too short
for the best paused trials, one *finalist* for each worker, they go on in the place of new candidates. (Time kept for
more of them cost more new candidates than it was worth, on LCBench.)

An empty front is the last resort. While no trial has come to the top, the most promising paused one goes on when half
of the budget is gone, or when what is left is just enough for the one that is nearest to the top; and where none is
expected to be done in time, the nearest goes on all the same, as predictions err and an idle worker is of no use.

What is left of a budget of epochs or device time is what nobody has spent and no running trial is committed to: each
goes on to its next rung, or to the top where it is a finalist or no rung rule stops it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autodistill.core.budget import Budget, Spent, format_seconds
from autodistill.core.records import Candidate, TrialRecord
from autodistill.search.rungs.epoch_time import EpochTime, Known
from autodistill.search.rungs.levels import Rungs
from autodistill.search.rungs.promotion import Action, PausedTrial, RungDecision
from autodistill.search.rungs.teacher_time import views_key
from autodistill.search.study.rung_rules import Rule

MAX_PAUSED = 32
"""Paused trials that keep their checkpoints; beyond it the least promising are stopped for good."""

SLACK = 8  # so that the bound is looked at once in a while, not at every pause
SAFETY = 1.25
"""How many times the predicted time is kept for the first trial of all to come to the top."""

LATE = 0.5
"""Share of the budget after which the first trial to come to the top goes before new candidates."""

TOO_LITTLE = "too little is left of the budget for another trial to reach the top rung"


@dataclass(frozen=True)
class RemainingBudget:
    """What may be spent now.

    Attributes:
        seconds: of work on one trial left in wall-clock and device time; infinite without such a limit.
        epochs: likewise.
        closed: why no new candidate may be started; empty while one may.
        few: with ``closed``: continue only trials that deserve it (the budget counts trials), not whatever may add.
        busy: trials that run now.
        quickest: while no trial has come to the top, seconds of a full training of the quickest student that is known,
            infinite where nothing is; ``None`` once one has.
        gone: share of the budget that is spent, of trials not counted.
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
        dry: str,
        committed: tuple[float, float] = (0.0, 0.0),
        devices: float = 1.0,
        quickest: float | None = None,
    ) -> RemainingBudget:
        """Terms of a budget.

        Args:
            budget: limits of the study.
            spent: so far.
            kept_back: seconds that are for something else.
            starting: running trials that the budget has not counted yet.
            busy: running trials.
            dry: why the space has nothing new; empty while it has.
            committed: seconds of work and epochs that running trials will still take.
            devices: that a trial takes.
            quickest: see the attribute.
        """
        seconds = budget.seconds_left(spent, kept_back=kept_back)
        if budget.device_seconds is not None:
            left = (budget.device_seconds - spent.device_seconds) / devices
            seconds = min(seconds, max(0.0, left - committed[0]))
        epochs = math.inf if budget.epochs is None else max(0.0, budget.epochs - spent.epochs - committed[1])
        full = budget.full(spent.trials + starting)
        gone = budget.share(spent, kept_back=kept_back)
        return RemainingBudget(seconds, epochs, full or dry, few=bool(full), busy=busy, quickest=quickest, gone=gone)


@dataclass(frozen=True)
class NextStep:
    """What to do next.

    Attributes:
        trial: number to go on with; ``None`` for a new candidate.
        why: in words.
        nothing: neither; ``why`` says the reason.
        final: the rest of the budget is for this trial and others like it, which go on to the top.
    """

    trial: int | None
    why: str
    nothing: bool = False
    final: bool = False


@dataclass(frozen=True)
class Prospect:
    """What is known of trainings that do not run now; ``None`` where nothing is.

    Attributes:
        epochs: of a full training.
        epoch: seconds of one epoch of the quickest student whose costs are known.
        paused: seconds to the top rung of the paused trial that is nearest to it.
    """

    epochs: float
    epoch: float | None = None
    paused: float | None = None


class Scheduler:
    """Paused and interrupted trials, and the order in which they and new candidates are worked on.

    Args:
        rungs: fidelities.
        epoch_time: predicted seconds per epoch; a new one by default.
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
        """A trial waits at ``rung`` for its turn."""
        self.paused[number] = rung
        self._finalists.discard(number)
        self._costs[number] = costs

    def take(self, number: int) -> None:
        """A paused trial is worked on."""
        del self.paused[number]

    def changed(self) -> None:
        """Something happened that the last decision did not know of."""
        self._decided = None

    def excess(self) -> dict[int, str]:
        """Paused trials to stop for good, so that checkpoints and open trials stay few, and why."""
        if self.rule is None or len(self.paused) <= MAX_PAUSED + SLACK:
            return {}
        known = {n: self.rule.standing(n) for n in self.paused}
        if not any(known.values()):
            return {}
        order = sorted(self.paused, key=lambda n: _worth(known[n]), reverse=True)
        return dict.fromkeys(order[MAX_PAUSED:], f"{MAX_PAUSED} other paused trials promise more")

    # -- what to do ------------------------------------------------------------------------------------------------

    def choose(self, terms: RemainingBudget, *, queued: bool) -> NextStep:
        """The next step; ``queued``: candidates of the user's own wait to be proposed."""
        for record in self.interrupted:
            if self._fits(self._to_next(record.number, max(record.rungs, default=0), record.rungs.get(0, {})), terms):
                return NextStep(record.number, "was interrupted")
        if queued and not terms.closed:
            return NextStep(None, "given by the user")
        step, self._decided = self._decided or self._decide(self.paused, terms), None
        return self._noted(step)

    def committed(self, running: Iterable[tuple[int, int, Mapping[str, float]]]) -> tuple[float, float]:
        """Seconds of work (as far as predicted) and epochs that running trials will take before anything stops them.

        Args:
            running: number, last rung and known costs of each.
        """
        works = [self._to_next(*trial) for trial in running]
        return sum(seconds for seconds, _ in works), sum(epochs for _, epochs in works)

    def after(self, number: int, rung: int, costs: Mapping[str, float], terms: RemainingBudget) -> RungDecision:
        """Whether a trial that has just reported ``rung`` goes on."""
        assert self.rule is not None
        self._costs[number] = costs
        verdict = self.rule.verdict(number, rung)
        fits = self._fits(self._to_top(number, rung), terms)
        hurry = terms.quickest is not None and terms.gone >= LATE
        if (
            verdict is not None
            and fits
            and (verdict.go_on or not hurry)
            and (verdict.go_on or not terms.closed or terms.few)
        ):
            words = "goes on from" if verdict.go_on else "stopped at"
            return RungDecision(verdict.go_on, f"{words} {self._at(rung)}: {verdict.why}", verdict.final)
        step = self._decide({**self.paused, number: rung}, terms)
        if step.trial == number:
            return RungDecision(True, f"goes on from {self._at(rung)}: {self._noted(step).why}")
        self._decided = step
        return RungDecision(False, self._why_paused(number, rung, step, terms))

    def too_slow(self, costs: Mapping[str, float], terms: RemainingBudget, candidate: Candidate | None = None) -> str:
        """Why a student cannot reach the top rung in the time left; empty if it can, or nothing is known.

        Args:
            costs: known ones of the student.
            terms: what may be spent.
            candidate: says which views the teacher would be asked about.
        """
        family = "" if candidate is None else str(candidate.student.get("family", ""))
        rate, top = self.epoch_time.predict(costs, family), self._rungs.levels[-1]
        needed = 0.0 if rate is None else rate * top
        if candidate is not None and needed:
            needed += self.epoch_time.cold.ahead(views_key(candidate.distillation, candidate.train), 0.0, top)
        if needed <= terms.seconds:
            return ""
        return f"needs about {format_seconds(needed)} to the top rung, {format_seconds(terms.seconds)} are left"

    def quickest(self, students: Sequence[Mapping[str, float]]) -> float:
        """Seconds of a full training of the quickest of these students, given their known costs; infinite: no clue."""
        rate = self.epoch_time.least(students, {})
        return math.inf if rate is None else rate * self._rungs.levels[-1]

    def prospect(self, students: Sequence[Mapping[str, float]], running: Mapping[int, Known]) -> Prospect:
        """What could be trained in place of the trials that run.

        Args:
            students: known costs of all that are known.
            running: trials under way.
        """
        to_top = [self._to_top(n, rung)[0] for n, rung in self.paused.items()]
        least = self.epoch_time.least(students, running)
        return Prospect(self._rungs.levels[-1], least, min(filter(None, to_top), default=None))

    # -- private ---------------------------------------------------------------------------------------------------

    def _decide(self, waiting: Mapping[int, int], terms: RemainingBudget) -> NextStep:
        closed = terms.closed or ("" if self._rungs.levels[-1] <= terms.epochs else TOO_LITTLE)
        if self.rule is None:  # every trial trains to the top
            return NextStep(None, closed or "a new candidate", nothing=bool(closed))
        action = self.rule.next(waiting, self._left(terms))
        if terms.quickest is not None and (first := self._first_of_all(action, waiting, terms, closed)) is not None:
            return first
        final = self._fitting(self.rule.finalists(waiting, few=terms.few), waiting, terms)
        if closed:
            why = f"may still add to the front; {closed}"
            return NextStep(final[0], why, final=True) if final else NextStep(None, closed, True)
        if action is None:
            if math.isinf(self._left(terms)):
                return NextStep(None, "a new candidate")
            why = "fits into what is left"
            return NextStep(final[0], why, final=True) if final else NextStep(None, TOO_LITTLE, True)
        if action.trial is not None:
            if self._fitting([action.trial], waiting, terms):
                return NextStep(action.trial, action.why)
        elif not self._last_call(final[: terms.busy + 1], waiting, terms, action):
            return NextStep(None, action.why)
        why = "the rest of the budget is kept for the finalists"
        return NextStep(final[0], why, final=True) if final else NextStep(None, action.why)

    def _noted(self, step: NextStep) -> NextStep:
        if step.final and step.trial is not None:
            self._finalists.add(step.trial)
        return step

    def _first_of_all(
        self, action: Action | None, waiting: Mapping[int, int], terms: RemainingBudget, closed: str
    ) -> NextStep | None:
        """The paused trial that goes on so that some trial comes to the top; ``None`` while there is time for others.

        Args:
            action: what the rule would do.
            waiting: number to last rung.
            terms: what may be spent.
            closed: why no new candidate may be started; empty while one may.
        """
        assert self.rule is not None
        promising = dict.fromkeys([*self.rule.finalists(waiting, few=False), *waiting])
        works = {n: self._to_top(n, waiting[n]) for n in promising}
        seconds = {n: work[0] for n, work in works.items() if work[1] <= terms.epochs}
        if not seconds:
            return None
        safe = [n for n in seconds if SAFETY * seconds[n] <= terms.seconds]
        new, quickest = math.inf, terms.quickest if terms.quickest is not None else math.inf
        if action is not None and action.trial is None and not closed:
            new = SAFETY * quickest if math.isfinite(quickest) else 0.0
        if not safe and new <= terms.seconds:
            return None  # another student may be quick enough
        needed = SAFETY * min(seconds.values())
        scarce = terms.seconds - self._first_rung(action) < min(needed, max(new, SAFETY * quickest))
        if not (terms.gone >= LATE or scarce or math.isinf(new)):
            return None
        chosen = safe or sorted(seconds, key=seconds.__getitem__)
        return NextStep(chosen[0], "no trial has come to the top yet", final=True)

    def _first_rung(self, action: Action | None) -> float:
        """Seconds of the first rung of a new candidate; 0 where nothing is known."""
        known = action is not None and action.epoch > 0 and self.epoch_time.ready
        rate = action.epoch if action is not None and known else self.epoch_time.typical
        return self._rungs.levels[0] * (rate or 0.0)

    def _last_call(
        self, finalists: Sequence[int], waiting: Mapping[int, int], terms: RemainingBudget, action: Action | None
    ) -> bool:
        """Whether the first rung of a new candidate would leave too little for the finalists, one for each worker."""
        if not finalists:
            return False
        works = [self._to_top(n, waiting[n]) for n in finalists]
        seconds = sum(s for s, _ in works) / (terms.busy + 1)
        epochs = sum(e for _, e in works)
        needed = max(seconds, *(s for s, _ in works))
        return terms.seconds - self._first_rung(action) < needed or terms.epochs - self._rungs.levels[0] < epochs

    def _fitting(self, numbers: Sequence[int], waiting: Mapping[int, int], terms: RemainingBudget) -> list[int]:
        return [n for n in numbers if self._fits(self._to_top(n, waiting[n]), terms)]

    def _to_top(self, number: int, rung: int) -> tuple[float, float]:
        """Seconds (0 where unknown) and epochs of a trial from its rung to the top."""
        return self._work(number, rung, self._rungs.levels[-1], self._costs.get(number, {}))

    def _to_next(self, number: int, rung: int, costs: Mapping[str, float]) -> tuple[float, float]:
        """Seconds and epochs of a trial to the rung at which it may be stopped next."""
        last = self._rungs.top - 1
        stops = last if self.rule is None or number in self._finalists else min(rung, last)
        return self._work(number, rung, self._rungs.levels[stops], costs)

    def _work(self, number: int, rung: int, level: float, costs: Mapping[str, float]) -> tuple[float, float]:
        done = self._rungs.levels[rung - 1] if rung else 0
        seconds = (level - done) * (self.epoch_time.of(number, costs) or 0.0)
        return seconds + self.epoch_time.cold.ahead_of(number, done, level), float(level - done)

    @staticmethod
    def _fits(work: tuple[float, float], terms: RemainingBudget) -> bool:
        return work[0] <= terms.seconds and work[1] <= terms.epochs

    def _left(self, terms: RemainingBudget) -> float:
        """What is left in the unit of the sampler's work: seconds when time is limited, else epochs."""
        if math.isfinite(terms.seconds):
            return terms.seconds if self.epoch_time.ready else math.inf
        return terms.epochs

    def _at(self, rung: int) -> str:
        return f"rung {rung} ({self._rungs.levels[rung - 1]} of {self._rungs.levels[-1]} epochs)"

    def _why_paused(self, number: int, rung: int, step: NextStep, terms: RemainingBudget) -> str:
        assert self.rule is not None
        standing = self.rule.standing(number)
        if step.nothing or standing is None:
            other = step.why
        else:
            other = "a new candidate promises more" if step.trial is None else f"trial {step.trial} promises more"
        if standing is None:
            return f"stopped at {self._at(rung)}: {other}"
        seconds, epochs = self._to_top(number, rung)
        price = format_seconds(seconds) if seconds and math.isfinite(terms.seconds) else f"{epochs:g} epochs"
        return f"stopped at {self._at(rung)}: may add {standing.gain:.2g} hypervolume for {price} more; {other}"


def _worth(standing: PausedTrial | None) -> tuple[float, float]:
    return (-1.0, 0.0) if standing is None else (standing.index, standing.gain)
