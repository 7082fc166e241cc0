"""The passive study: engines call ``ask``, ``report`` and ``close``; the study itself starts no work.

It owns the budget, the sampler, the rungs and the storage. Every trial ends in exactly one state with a reason code:

========================  =========================================================================================
COMPLETE                  reached the top rung; only these trials are on the front
PRUNED                    ``RUNG_RULE`` stopped by the rung rule · ``INFEASIBLE`` violates a constraint ·
                          ``INFEASIBLE_BUILD`` cannot be built · ``DUPLICATE`` proposed before · ``TIME`` would not
                          finish in time, may be proposed again · ``OUTSIDE`` enqueued, but not in the space ·
                          ``CRASH`` the student kills the worker that trains it on this machine
FAIL                      ``NAN`` · ``NON_FINITE`` · ``OOM`` · ``WORKER_LOST`` · ``HUNG`` training made no progress ·
                          ``ATTEMPTS`` · ``ENDED_EARLY`` the evaluation ended before the top rung without being
                          stopped · ``ERROR``
PARTIAL                   can continue from its checkpoint: ``PAUSED`` when the scheduler selects it (see
                          ``scheduler.py``), ``BUDGET`` or ``INTERRUPTED`` first of all when the study is resumed
========================  =========================================================================================
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from autodistill.core.budget import Budget
from autodistill.core.errors import EndedEarlyError, InterruptedTrialError, UsageError, WorkerLostError
from autodistill.core.records import Candidate, Constraint, Decision, Objective, Report, State, TrialRecord, stable_key
from autodistill.search.objectives.within_teacher import PROMISES, aims_of, bounded
from autodistill.search.rungs.levels import Rungs
from autodistill.search.rungs.losses_by_rung import LossesByRung
from autodistill.search.sampler.front_sampler import ExhaustedError
from autodistill.search.sampler.proposer import Proposer, broken_constraints
from autodistill.search.space.space import Space
from autodistill.search.storage.results_file import ResultsFile
from autodistill.search.storage.study_folder import FileStorage, load_or_create
from autodistill.search.storage.trial_log import TrialLog
from autodistill.search.study.crashes import REASON, Crashes, GivenUp
from autodistill.search.study.end_states import UNFINISHED, end_by_error, ended_early, plain_report, report_error
from autodistill.search.study.inputs import Inputs
from autodistill.search.study.readings import Readings
from autodistill.search.study.resuming import BLANK, learn_epoch_time, next_attempt, restore_state, rule_of
from autodistill.search.study.resuming import MAX_ATTEMPTS as MAX_ATTEMPTS
from autodistill.search.study.scheduler import TOO_LITTLE, NextStep, RemainingBudget, Scheduler
from autodistill.search.study.spending import BOOKED, Spending, reported
from autodistill.search.study.stopping import Refusals, Streak
from autodistill.search.study.trial_ends import FREE, TrialEnds

MAX_LATE = 10  # consecutive proposals that would not finish in time, after which only paused trials are considered


class Study(Inputs, Readings):
    """One search: its space, its trials and its remaining budget.

    Use :func:`autodistill.create_study` or :func:`autodistill.open_study`; the constructor is for tests and for code
    that builds on this class.

    Args:
        storage: Optuna storage; the study called ``name`` in it is created or resumed.
        name: name of the study.
        space: search space.
        objectives: axes of the front, in order.
        constraints: bounds on metrics; bounds on known costs reject a candidate before training.
        within: count students far below the teacher's accuracy as no gain, if no constraint bounds the accuracy and
            the teacher's accuracy is known; see ``within_teacher.py``.
        sampler: name (``front``, ``gp``, ``tpe``, …) or an Optuna sampler.
        rungs: fidelities and stopping rule.
        seed: seed of proposals and trials.
        directory: folder of the study; ``None`` for a study in memory.

    Attributes:
        config: study file that the study was opened from; ``None`` if there is none.
        budget: limits over the whole life of the study.
        ended: why the last run ended; empty while it runs.
        notes: messages for the user about what opening the study did.
        after: callback ``after(number, state)``, called when a trial ends or is paused.
        on_crash: callback, called with a student that is given up once another student has trained on this machine.
        under_way: returns the seconds of running work that no report has covered yet.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        within: bool = True,
        sampler: str | optuna.samplers.BaseSampler = "front",
        rungs: Rungs | None = None,
        seed: int = 0,
        directory: Path | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the engines print one line per trial
        self.name, self.space, self.directory, self.seed = name, space, directory, seed
        self.storage = storage
        self.objectives, self.constraints = tuple(objectives), tuple(constraints)
        self._within = within
        self.rungs = rungs or Rungs((1,), stopping=False)
        self.optuna = load_or_create(storage, name, self.objectives)
        self.config: Any = None
        self.budget = Budget()
        self.ended = ""
        self.notes: list[str] = []
        self.after: Callable[[int, State], None] = lambda *_: None
        self.on_crash: Callable[[GivenUp], None] = lambda _: None
        self.under_way: Callable[[], float] = lambda: 0.0
        in_file = directory is not None and isinstance(getattr(storage, "_backend", storage), FileStorage)
        results = ResultsFile(directory) if directory is not None and in_file else None
        self._log = TrialLog(self.optuna, storage, [o.name for o in self.objectives], results)
        self._proposer = Proposer(
            self.optuna,
            self._log,
            space,
            self.objectives,
            self.constraints,
            sampler=sampler,
            rungs=self.rungs,
            seed=seed,
        )
        self._pending_ends: dict[int, tuple[State, str, str]] = {}
        self._open: dict[int, Candidate] = {}
        self._paused_at: dict[int, int] = {}  # resumed trial -> rung at which it was paused
        self._scheduler, self._losses_by_rung = Scheduler(self.rungs), LossesByRung(self.objectives, self.rungs.top)
        self._exhausted, self._streak, self._resumed = "", Streak(), False
        self._kept_back, self._late = 0.0, 0
        self._crashes = Crashes(self._log)
        self._spending = Spending(self.optuna)
        self._trial_ends = TrialEnds(self._log, self._spending, self.objectives, self.constraints, top=self.rungs.top)
        self._bind()

    # -- opening -------------------------------------------------------------------------------------------------

    @staticmethod
    def open(source: Any, **changes: Any) -> Study:
        """Open a study; an alias of :func:`autodistill.open_study` kept for older programs."""
        from autodistill.api import open_study

        return open_study(source, **changes)

    @staticmethod
    def create(**keys: Any) -> Study:
        """Create a study; an alias of :func:`autodistill.create_study` kept for older programs."""
        from autodistill.api import create_study

        return create_study(**keys)

    # -- the contract with engines ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self, budget: Budget | str | None = None) -> Iterator[Study]:
        """Run the study's clock inside the ``with`` block and make interrupted trials available again.

        Args:
            budget: limits over the whole life of the study; ``None`` keeps the present limits.
        """
        if budget is not None:
            self.budget = Budget.parse(budget)
        self._log.reload()  # another driver may have continued the study since it was opened
        self._spending.start(self._trial_ends.counted())
        self.ended = self._exhausted = ""
        self._late = 0
        self._proposer.renew()
        self._proposer.forbidden.clear()
        for one in self._crashes.reload():
            self._proposer.forbid(one.student, one.why)
        self._reconcile()
        self._resumed, self._streak = True, Streak()
        try:
            yield self
        finally:
            self.ended = self.ended or self.over
            self._spending.stop()

    def ask(self) -> Candidate | None:
        """Return the next candidate, or ``None`` when the budget or the space is exhausted (see ``ended``).

        Raises:
            UserCodeError: the last trials all failed in the same way.
            UsageError: a constraint needs the teacher's accuracy, which is not known.
        """
        self._check_bounds()
        self._streak.check()
        if self._resumed:  # not before, since the known costs are set after the run has begun
            self._resumed = False
            self._carry_out_missed()
        refusals = Refusals()
        while True:
            self._exhausted = self._exhausted or refusals.why
            self.ended = self.over
            remaining = self._remaining()
            step = NextStep(None, self.ended, nothing=True) if self.ended else self._choose(remaining)
            if step.trial is not None:
                return self._take_up(self._log.record(step.trial), step.why)
            if step.nothing:
                self.ended = step.why
                return None
            proposed = self._propose(remaining)
            self._late = self._late + 1 if proposed == "TIME" else 0
            if self._late == MAX_LATE and self._drawn_in_time(remaining):
                self._late = 0
            if isinstance(proposed, Candidate):
                self._open[proposed.number] = proposed
                return proposed
            if refusals.add(proposed) and not self._proposer.is_front:
                self._exhausted = self._proposer.draw_within()

    def report(self, candidate: Candidate, report: Report, *, seconds: float = 0.0) -> Decision:
        """Record the report of a rung and decide whether the trial continues.

        A resumed evaluation that starts anew reports its earlier rungs again; these are not counted twice.

        Args:
            candidate: candidate from :meth:`ask`.
            report: report of the candidate's evaluation.
            seconds: seconds of work since the last report; used if the report contains no seconds.
        """
        number = candidate.number
        if report.rung <= candidate.start_rung and candidate.start_rung > 0:
            return Decision.CONTINUE
        stored = self._log.attributes(number)
        report = plain_report(report, self.rungs.levels, reported(stored, "seconds") + seconds)
        self._spending.account(report, stored, seconds)
        invalid = report_error(report, stored.get("rung:0", {}), self.rungs.levels, self.objectives)
        if invalid:
            self._spending.save()
            return self._settle(number, State.FAIL, *invalid)
        self._trial_ends.rung(number, report)
        if report.rung == 0:
            return self._report_costs(candidate, report.values)
        return self._report_rung(number, report)

    def close(
        self, candidate: Candidate, error: BaseException | None = None, *, seconds: float = 0.0, epochs: float = 0.0
    ) -> State:
        """End a trial by the decision on its last report, or by the error that ended it.

        Args:
            candidate: candidate from :meth:`ask`.
            error: error that ended the evaluation; ``None`` if there was none.
            seconds: seconds of work since the last report; counted if the trial failed or can continue.
            epochs: epochs trained since the beginning of the trial; 0 if unknown.

        Returns:
            State in which the trial ended.
        """
        number = candidate.number
        settled = self._pending_ends.pop(number, None)
        if seconds and (isinstance(error, InterruptedTrialError) or (error is None and settled is None)):
            self._log.set(number, BOOKED, self._spending.advance(self._log.attributes(number), seconds))
        if isinstance(error, EndedEarlyError):
            settled = settled or (State.FAIL, error.reason, ended_early(self._log.rung(number), self.rungs.levels))
        elif isinstance(error, WorkerLostError) and error.by_student:
            settled = settled or self._lost(candidate, error)
        elif error is not None and (settled is None or settled[0] is not State.COMPLETE):
            settled = end_by_error(error, self.over)
        state, reason, message = settled or self._let_go(number)
        self._open.pop(number, None)
        if state is State.FAIL or reason == REASON:
            self._spending.charge(self._log.attributes(number), seconds, epochs)
        elif isinstance(error, WorkerLostError):  # this work will be repeated
            self._spending.charge(self._log.attributes(number), seconds, 0.0)
        nothing = reason in FREE or (state is State.FAIL and self._log.rung(number) == 0)
        self._end(number, state, reason, message)
        if isinstance(error, WorkerLostError) and state is State.PARTIAL:
            self._scheduler.interrupted.append(self._log.record(number))
        self._streak.evaluated(reason, message, nothing=nothing)
        for excess, why in self._scheduler.excess().items():
            self._give_up(excess, why)
        return state

    def record_promises(self) -> None:
        """Store the sampler's predictions for paused trials for readers, if no finished trial meets :meth:`reach`."""
        reach = self.reach()
        lacking = reach is not None and self.nearest() is not None
        made = self._proposer.promises(list(self._scheduler.paused), reach.bound) if reach and lacking else []
        if made or PROMISES in self.optuna.user_attrs:
            self.optuna.set_user_attr(PROMISES, [asdict(one) for one in made])

    # -- private -------------------------------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Resolve the bounds that depend on the teacher, if it is known, and pass all bounds to sampler and rule."""
        self.constraints = bounded(self.constraints, self.teacher_values())
        aims = aims_of(self.reach())
        self._proposer.bind(self.constraints, aims)
        self._trial_ends.constraints = self.constraints
        if self._scheduler.rule is not None:
            self._set_rule()

    def _check_bounds(self) -> None:
        open_ = [str(one) for one in self.constraints if math.isnan(one.bound)]
        if open_:
            raise UsageError(
                f"the constraint '{open_[0]}' needs the accuracy of a teacher, which is unknown in this study; write "
                "a number, e.g. 'accuracy >= 0.9', or give it: study.set_teacher_values({'accuracy': 0.93})."
            )

    def _set_rule(self) -> None:
        wanted = (*self.constraints, *aims_of(self.reach()))
        self._scheduler.rule = rule_of(
            self._proposer, self.optuna, self.rungs, self.objectives, self._losses_by_rung, wanted
        )

    def _remaining(self, reporting: int | None = None) -> RemainingBudget:
        """Return the remaining budget, without work of the trial ``reporting``, whose report is being decided on."""
        fresh = sum(not self._log.attributes(n).get("counted") for n in self._open)
        exhausted = self._exhausted or self._streak.fruitless or (TOO_LITTLE if self._late >= MAX_LATE else "")
        if not exhausted and self._proposer.exhausted:
            exhausted = f"space exhausted: all {self._log.distinct()} candidates are tried"
        running = [n for n in self._open if n != reporting and n not in self._pending_ends]
        known = ((n, self._log.rung(n), self._log.attributes(n).get("rung:0", {})) for n in running)
        return RemainingBudget.of(
            self.budget,
            self.spent,
            self._kept_back,
            starting=fresh,
            busy=sum(n != reporting for n in self._open),
            exhausted=exhausted,
            committed=self._scheduler.committed(known),
            devices=self._spending.devices,
            quickest=None if self._losses_by_rung.finished else self._scheduler.quickest(self._proposer.known_costs()),
        )

    def _choose(self, remaining: RemainingBudget) -> NextStep:
        if self._scheduler.rule is not None:
            for number, why in self._scheduler.rule.lost(self._scheduler.paused).items():
                if not remaining.closed or remaining.few:
                    self._give_up(number, why)
        return self._scheduler.choose(remaining, queued=self._proposer.queued)

    def _give_up(self, number: int, why: str) -> None:
        """Stop a paused trial for good."""
        self._scheduler.take(number)
        rung = self._log.rung(number)
        words = f"stopped at rung {rung} for good: {why}"
        self._log.decide(number, rung, words, go_on=False)
        self._end(number, State.PRUNED, "RUNG_RULE", words)

    def _propose(self, remaining: RemainingBudget) -> Candidate | str:
        """Propose one new trial; if it is refused, store the refusal and return its reason code."""
        self._scheduler.changed()
        try:
            proposal = self._proposer.propose()
        except ExhaustedError as error:
            self._exhausted = f"space exhausted: {error}"
            for number in self._log.without_candidate():  # Optuna creates a trial before it calls the sampler
                self._end(number, State.PRUNED, "DUPLICATE", self._exhausted)
            return "DUPLICATE"
        number, refusal = proposal.candidate.number, proposal.refusal
        late = self._scheduler.too_slow(proposal.costs, remaining, proposal.candidate) if refusal is None else ""
        if late:
            refusal = ("TIME", late)
        if refusal is None:
            if proposal.again:
                self._log.set(number, "state", State.RUNNING.value)
                self._log.set(number, "reason", "")
            return proposal.candidate
        self._trial_ends.costs(number, proposal.costs)
        self._end(number, State.PRUNED, *refusal)
        return refusal[0]

    def _drawn_in_time(self, remaining: RemainingBudget) -> bool:
        """Enqueue a random known candidate that would finish in time and return whether one exists."""
        return self._proposer.draw_known(lambda costs, one: not self._scheduler.too_slow(costs, remaining, one))

    def _take_up(self, record: TrialRecord, why: str) -> Candidate:
        """Continue a paused or interrupted trial under its own number."""
        number, rung = record.number, self._log.rung(record.number)
        self._scheduler.changed()
        if number in self._scheduler.paused:
            self._paused_at[number] = rung
            self._scheduler.take(number)
            self._log.decide(number, rung, f"goes on later: {why}", go_on=True)
        else:
            self._paused_at.pop(number, None)
            self._scheduler.interrupted = [r for r in self._scheduler.interrupted if r.number != number]
        if record.state is State.RUNNING:  # the driver died during the trial
            for key, value in next_attempt(self._log.attributes(number), rung).items():
                self._log.set(number, key, value)
        self._log.set(number, "state", State.RUNNING.value)
        self._log.set(number, "reason", "")
        candidate = Candidate(number, record.student, record.distillation, record.train, record.seed, start_rung=rung)
        self._open[number] = candidate
        return candidate

    def _let_go(self, number: int) -> tuple[State, str, str]:
        """Return the end of a trial without a decision: paused as before if it has reported nothing since."""
        if self._log.rung(number) == self._paused_at.get(number):
            return State.PARTIAL, "PAUSED", self._log.record(number).message
        return UNFINISHED

    def _lost(self, candidate: Candidate, error: WorkerLostError) -> tuple[State, str, str]:
        """Return the end of a trial that lost its worker; if its student is given up, end its waiting trials too."""
        found = self._crashes.lost(candidate, error)
        if not isinstance(found, GivenUp):
            return found
        self._proposer.forbid(found.student, found.why)
        waiting = {record.number: record for record in self._scheduler.interrupted}
        waiting.update({number: self._log.record(number) for number in self._scheduler.paused})
        for number, record in waiting.items():
            if stable_key(record.student) == found.key:
                self._scheduler.paused.pop(number, None)
                self._scheduler.interrupted = [one for one in self._scheduler.interrupted if one.number != number]
                self._end(number, State.PRUNED, REASON, found.why)
        return (State.FAIL, error.reason, found.why) if error.reason == "HUNG" else (State.PRUNED, REASON, found.why)

    def _reconcile(self) -> None:
        """Restore the state from the stored trials and give up trials that keep crashing."""
        self._scheduler, self._losses_by_rung, ends = restore_state(self._log, self.rungs, self.objectives, self._open)
        for number, end in ends.items():
            self._end(number, *end)
        self._set_rule()
        in_time = self.budget.seconds is not None or self.budget.device_seconds is not None
        self._proposer.epoch_time = self._scheduler.epoch_time if in_time else None
        self._expect_epoch_times()
        self._proposer.blank = [n for n in self._log.without_candidate() if n not in self._open]
        for number in self._proposer.blank:
            self._end(number, State.PARTIAL, "INTERRUPTED", BLANK)

    def _carry_out_missed(self) -> None:
        """Make the decisions, and the refusals, that a driver did not live to make or to carry out."""
        for record in self._scheduler.interrupted[:]:
            end = self._missed(record)
            if end is not None:
                self._scheduler.interrupted.remove(record)
                self._end(record.number, *end)

    def _missed(self, record: TrialRecord) -> tuple[State, str, str] | None:
        """Return the end that a driver did not live to give a trial; ``None`` if the trial continues."""
        number, rung = record.number, max(record.rungs, default=0)
        if record.state is not State.RUNNING:
            return None
        if not record.rungs:
            proposal = self._proposer.check_again(record)
            if proposal.refusal is None:
                return None
            self._trial_ends.costs(number, proposal.costs)
            return State.PRUNED, *proposal.refusal
        if not rung or not self._log.undecided(number, rung):
            return None
        return self._verdict(number, rung, self._losses_by_rung.unbeaten(number, rung))

    def _report_costs(self, candidate: Candidate, values: Mapping[str, float]) -> Decision:
        self._proposer.learn(candidate.student, values)
        self._trial_ends.mark_constraints(candidate.number, values)
        broken = broken_constraints(self.constraints, values)
        if broken:
            return self._settle(candidate.number, State.PRUNED, "INFEASIBLE", broken)
        return Decision.CONTINUE

    def _report_rung(self, number: int, report: Report) -> Decision:
        known = self._log.attributes(number).get("rung:0", {})
        for one in self._crashes.trained(self._log.record(number).student):
            self.on_crash(one)
        self._losses_by_rung.add(number, report.rung, {**known, **report.values})
        unbeaten = self._losses_by_rung.unbeaten(number, report.rung)
        learn_epoch_time(self._scheduler.epoch_time, self._log.record(number))
        self._scheduler.changed()
        self._late = min(self._late, MAX_LATE - 1)  # the predicted epoch times have changed: allow one more proposal
        if report.rung >= self.rungs.top:
            self._log.decide(number, report.rung, self.rungs.reached, go_on=True, unbeaten=unbeaten)
            return self._settle(number, State.COMPLETE, "", self.rungs.reached)
        stopped = self._verdict(number, report.rung, unbeaten)
        return Decision.CONTINUE if stopped is None else self._settle(number, *stopped)

    def _verdict(self, number: int, rung: int, unbeaten: bool) -> tuple[State, str, str] | None:
        """Decide on a report and store the decision; return how the trial ends, ``None`` if it continues."""
        spent = self.over
        if spent:
            return State.PARTIAL, "BUDGET", f"{spent}; goes on when the study is resumed"
        if self._scheduler.rule is None:
            return None
        known = self._log.attributes(number).get("rung:0", {})
        verdict = self._scheduler.after(number, rung, known, self._remaining(reporting=number))
        self._log.decide(number, rung, verdict.why, go_on=verdict.go_on, unbeaten=unbeaten)
        if verdict.go_on:
            return None
        state, reason = (State.PRUNED, "RUNG_RULE") if verdict.final else (State.PARTIAL, "PAUSED")
        return state, reason, verdict.why

    def _settle(self, number: int, state: State, reason: str, message: str) -> Decision:
        self._pending_ends[number] = (state, reason, message)
        return Decision.STOP

    def _end(self, number: int, state: State, reason: str, message: str) -> None:
        self._trial_ends.end(number, state, reason, message)
        self._streak.ended(state, reason, message)
        if reason == "PAUSED":
            self._scheduler.pause(number, self._log.rung(number), self._log.attributes(number).get("rung:0", {}))
        else:
            self._scheduler.changed()
        self.after(number, state)
