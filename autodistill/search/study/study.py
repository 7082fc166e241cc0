"""The passive study: it answers ``ask``, ``report`` and ``close``; engines call it, it calls nobody.

It owns budget, sampler, rungs and the store. Every trial ends in exactly one state with a reason code:

========================  =========================================================================================
COMPLETE                  reached the top rung; only these are on the front
PRUNED                    ``RUNG_RULE`` stopped by comparison · ``INFEASIBLE`` breaks a constraint ·
                          ``INFEASIBLE_BUILD`` cannot be built · ``DUPLICATE`` proposed before · ``TIME`` would not be
                          done in time, may be proposed again · ``OUTSIDE`` enqueued, and not in the space ·
                          ``CRASH`` its student kills the worker that trains it, on this machine
FAIL                      ``NAN`` · ``NON_FINITE`` · ``OOM`` · ``WORKER_LOST`` · ``HUNG`` its training stood still ·
                          ``ATTEMPTS`` · ``ENDED_EARLY`` its evaluation ended before the top rung, unasked · ``ERROR``
PARTIAL                   goes on from its checkpoint: ``PAUSED`` when its turn comes (see ``agenda.py``), ``BUDGET``
                          or ``INTERRUPTED`` first of all when the study is resumed
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
from autodistill.search.sampler import front_sampler as samplers
from autodistill.search.sampler.proposer import Proposer, broken_constraints
from autodistill.search.space.space import Space
from autodistill.search.storage.study_folder import load_or_create
from autodistill.search.storage.trial_log import TrialLog
from autodistill.search.study.crashes import REASON, Crashes, GivenUp
from autodistill.search.study.end_states import UNFINISHED, complaint_of, ended_early, plain_report, verdict_of
from autodistill.search.study.inputs import Inputs
from autodistill.search.study.readings import Readings
from autodistill.search.study.resuming import MAX_ATTEMPTS as MAX_ATTEMPTS
from autodistill.search.study.resuming import learn_pace, next_attempt, restore_state, rule_of
from autodistill.search.study.scheduler import TOO_LITTLE, NextStep, RemainingBudget, Scheduler
from autodistill.search.study.spending import BOOKED, Spending, reported
from autodistill.search.study.stopping import Refusals, Streak
from autodistill.search.study.trial_ends import FREE, TrialEnds

MAX_LATE = 10  # proposals in a row that would not be done in time before only paused trials are looked at


class Study(Inputs, Readings):
    """One search: its space, what it has tried, and what it may still spend.

    Use :meth:`open` or :meth:`create`; the constructor is for tests and for building on top.

    Args:
        storage: Optuna storage; the study called ``name`` in it is created or resumed.
        name: the study's name.
        space: what may be proposed.
        objectives: axes of the front, in order.
        constraints: bounds on metrics; those on known costs reject a candidate before training.
        within: students far below the teacher count as no gain where no constraint bounds the accuracy and the
            teacher's is known; see ``reach.py``.
        sampler: name (``front``, ``gp``, ``tpe``, …) or an Optuna sampler.
        rungs: fidelities and stopping rule.
        seed: seed of proposals and trials.
        directory: the study's folder, ``None`` for one in memory.
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
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # one line per trial is the engines' to print
        self.name, self.space, self.directory, self.seed = name, space, directory, seed
        self.storage = storage
        self.objectives, self.constraints = tuple(objectives), tuple(constraints)
        self._within = within
        self.rungs = rungs or Rungs((1,), stopping=False)
        self.optuna = load_or_create(storage, name, self.objectives)
        self.config: Any = None
        self.budget = Budget()
        self.ended = ""
        self.notes: list[str] = []  # what was done while it was opened, for people
        self.after: Callable[[int, State], None] = lambda *_: None
        self.on_crash: Callable[[GivenUp], None] = lambda _: None  # a student is given up, and another could be trained
        self.under_way: Callable[[], float] = lambda: 0.0  # seconds of running work that nothing has told of
        self._log = TrialLog(self.optuna, storage, [o.name for o in self.objectives])
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
        self._verdicts: dict[int, tuple[State, str, str]] = {}
        self._open: dict[int, Candidate] = {}
        self._paused_at: dict[int, int] = {}  # rung at which a trial that was taken up had been paused
        self._scheduler, self._losses_by_rung = Scheduler(self.rungs), LossesByRung(self.objectives, self.rungs.top)
        self._dry, self._streak = "", Streak()
        self._kept_back, self._late = 0.0, 0
        self._crashes = Crashes(self._log)
        self._spending = Spending(self.optuna)
        self._filing = TrialEnds(self._log, self._spending, self.objectives, self.constraints, top=self.rungs.top)
        self._bind()

    # -- opening -------------------------------------------------------------------------------------------------

    @staticmethod
    def open(source: Any, **changes: Any) -> Study:
        """:func:`autodistill.open_study` under the name that older programs use."""
        from autodistill.api import open_study

        return open_study(source, **changes)

    @staticmethod
    def create(**keys: Any) -> Study:
        """:func:`autodistill.create_study` under the name that older programs use."""
        from autodistill.api import create_study

        return create_study(**keys)

    # -- the contract with engines ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self, budget: Budget | str | None = None) -> Iterator[Study]:
        """Spend time: the clock of the budget runs inside, and interrupted trials may be taken up again.

        Args:
            budget: limits over the whole life of the study; ``None`` keeps those it has.
        """
        if budget is not None:
            self.budget = Budget.parse(budget)
        self._log.reload()  # now that it is the only driver: another may have gone on with the study meanwhile
        self._spending.start()
        self.ended = self._dry = ""
        self._late = 0
        self._proposer.renew()
        self._proposer.forbidden.clear()
        for one in self._crashes.reload():
            self._proposer.forbid(one.student, one.why)
        self._reconcile()
        self._streak = Streak()
        try:
            yield self
        finally:
            self.ended = self.ended or self.over
            self._spending.stop()

    def ask(self) -> Candidate | None:
        """The next candidate, or ``None`` when the budget or the space is exhausted (``ended`` says which).

        Raises:
            UserCodeError: the last trials all failed in the same way.
            UsageError: a constraint needs the teacher's accuracy, which is not known.
        """
        self._check_bounds()
        self._streak.check()
        refusals = Refusals()
        while True:
            self._dry = self._dry or refusals.why
            self.ended = self.over
            terms = self._terms()
            step = NextStep(None, self.ended, nothing=True) if self.ended else self._choose(terms)
            if step.trial is not None:
                return self._take_up(self._log.record(step.trial), step.why)
            if step.nothing:
                self.ended = step.why
                return None
            proposed = self._propose(terms)
            self._late = self._late + 1 if proposed == "TIME" else 0
            if self._late == MAX_LATE and self._drawn_in_time(terms):
                self._late = 0
            if isinstance(proposed, Candidate):
                self._open[proposed.number] = proposed
                return proposed
            if refusals.add(proposed) and not self._proposer.is_front:
                self._dry = self._proposer.draw_within()

    def report(self, candidate: Candidate, report: Report, *, seconds: float = 0.0) -> Decision:
        """Take what a rung showed and say whether the trial goes on.

        A rung that is reported again, by an evaluation that begins anew when its trial goes on, is not counted twice.

        Args:
            candidate: what :meth:`ask` gave.
            report: of its evaluation.
            seconds: work since its last report, which counts where the report tells of none.
        """
        number = candidate.number
        if report.rung <= candidate.start_rung and candidate.start_rung > 0:
            return Decision.CONTINUE
        stored = self._log.attributes(number)
        report = plain_report(report, self.rungs.levels, reported(stored, "seconds") + seconds)
        self._spending.account(report, stored, seconds)
        complaint = complaint_of(report, stored.get("rung:0", {}), self.rungs.levels, self.objectives)
        if complaint:
            return self._settle(number, State.FAIL, *complaint)
        self._filing.rung(number, report)
        if report.rung == 0:
            return self._report_costs(candidate, report.values)
        return self._report_rung(number, report)

    def close(
        self, candidate: Candidate, error: BaseException | None = None, *, seconds: float = 0.0, epochs: float = 0.0
    ) -> State:
        """End a trial: by the verdict of its last report, or by the error that ended it.

        Args:
            candidate: what :meth:`ask` gave.
            error: what ended its evaluation.
            seconds: work since its last report, which counts where it has failed or is to go on.
            epochs: the same of the training, from the trial's beginning; 0 where nothing is known.
        """
        number = candidate.number
        settled = self._verdicts.pop(number, None)
        if seconds and (isinstance(error, InterruptedTrialError) or (error is None and settled is None)):
            self._log.set(number, BOOKED, self._spending.advance(self._log.attributes(number), seconds))
        if isinstance(error, EndedEarlyError):
            settled = settled or (State.FAIL, error.reason, ended_early(self._log.rung(number), self.rungs.levels))
        elif isinstance(error, WorkerLostError) and error.by_student:
            settled = settled or self._lost(candidate, error)
        elif error is not None and (settled is None or settled[0] is not State.COMPLETE):
            settled = verdict_of(error, self.over)
        state, reason, message = settled or self._let_go(number)
        self._open.pop(number, None)
        if state is State.FAIL or reason == REASON:
            self._spending.charge(self._log.attributes(number), seconds, epochs)
        elif isinstance(error, WorkerLostError):  # work that is done once more
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
        """Keep what the sampler expects of paused trials where no finished one is within :meth:`reach`, for readers."""
        reach = self.reach()
        lacking = reach is not None and self.nearest() is not None
        made = self._proposer.promises(list(self._scheduler.paused), reach.bound) if reach and lacking else []
        if made or PROMISES in self.optuna.user_attrs:
            self.optuna.set_user_attr(PROMISES, [asdict(one) for one in made])

    # -- private -------------------------------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Give the bounds that depend on the teacher their numbers, as far as it is known, and hand them on."""
        self.constraints = bounded(self.constraints, self.teacher_values())
        aims = aims_of(self.reach())
        self._proposer.bind(self.constraints, aims)
        self._filing.constraints = self.constraints
        if self._scheduler.rule is not None:
            self._set_rule()

    def _check_bounds(self) -> None:
        open_ = [str(one) for one in self.constraints if math.isnan(one.bound)]
        if open_:
            raise UsageError(
                f"the constraint '{open_[0]}' needs the accuracy of a teacher, which this study does not know; write "
                "a number, e.g. 'accuracy >= 0.9', or give it: study.set_teacher_values({'accuracy': 0.93})."
            )

    def _set_rule(self) -> None:
        wanted = (*self.constraints, *aims_of(self.reach()))
        self._scheduler.rule = rule_of(
            self._proposer, self.optuna, self.rungs, self.objectives, self._losses_by_rung, wanted
        )

    def _terms(self, judged: int | None = None) -> RemainingBudget:
        """What may be spent now, and whether anything new may be started; ``judged`` is no commitment yet."""
        fresh = sum(not self._log.attributes(n).get("counted") for n in self._open)
        dry = self._dry or self._streak.barren or (TOO_LITTLE if self._late >= MAX_LATE else "")
        if not dry and self._proposer.exhausted:
            dry = f"space exhausted: all {self._log.distinct()} candidates are tried"
        running = [n for n in self._open if n != judged and n not in self._verdicts]
        known = ((n, self._log.rung(n), self._log.attributes(n).get("rung:0", {})) for n in running)
        return RemainingBudget.of(
            self.budget,
            self.spent,
            self._kept_back,
            starting=fresh,
            busy=len(self._open),
            dry=dry,
            committed=self._scheduler.committed(known),
            devices=self._spending.devices,
            quickest=None if self._losses_by_rung.finished else self._scheduler.quickest(self._proposer.known_costs()),
        )

    def _choose(self, terms: RemainingBudget) -> NextStep:
        if self._scheduler.rule is not None:
            for number, why in self._scheduler.rule.lost(self._scheduler.paused).items():
                if not terms.closed or terms.few:
                    self._give_up(number, why)
        return self._scheduler.choose(terms, queued=self._proposer.queued)

    def _give_up(self, number: int, why: str) -> None:
        """A paused trial will never go on."""
        self._scheduler.take(number)
        rung = self._log.rung(number)
        words = f"stopped at rung {rung} for good: {why}"
        self._log.decide(number, rung, words)
        self._end(number, State.PRUNED, "RUNG_RULE", words)

    def _propose(self, terms: RemainingBudget) -> Candidate | str:
        """One new trial, or the reason code of its refusal (it is stored as such)."""
        self._scheduler.changed()
        try:
            proposal = self._proposer.propose()
        except samplers.ExhaustedError as error:
            self._dry = f"space exhausted: {error}"
            for number in self._log.without_candidate():  # Optuna opens a trial before it asks the sampler
                self._end(number, State.PRUNED, "DUPLICATE", self._dry)
            return "DUPLICATE"
        number, refusal = proposal.candidate.number, proposal.refusal
        late = self._scheduler.too_slow(proposal.costs, terms, proposal.candidate) if refusal is None else ""
        if late:
            refusal = ("TIME", late)
        if refusal is None:
            return proposal.candidate
        self._filing.costs(number, proposal.costs)
        self._end(number, State.PRUNED, *refusal)
        return refusal[0]

    def _drawn_in_time(self, terms: RemainingBudget) -> bool:
        """Whether a candidate was queued that would be done in time: some student is known to be quick enough."""
        return self._proposer.draw_known(lambda costs, one: not self._scheduler.too_slow(costs, terms, one))

    def _take_up(self, record: TrialRecord, why: str) -> Candidate:
        """Go on with a paused or interrupted trial, under its own number."""
        number, rung = record.number, self._log.rung(record.number)
        self._scheduler.changed()
        if number in self._scheduler.paused:
            self._paused_at[number] = rung
            self._scheduler.take(number)
            self._log.decide(number, rung, f"goes on later: {why}")
        else:
            self._paused_at.pop(number, None)
            self._scheduler.interrupted = [r for r in self._scheduler.interrupted if r.number != number]
        if record.state is State.RUNNING:  # its driver died
            for key, value in next_attempt(self._log.attributes(number), rung).items():
                self._log.set(number, key, value)
        self._log.set(number, "state", State.RUNNING.value)
        self._log.set(number, "reason", "")
        candidate = Candidate(number, record.student, record.distillation, record.train, record.seed, start_rung=rung)
        self._open[number] = candidate
        return candidate

    def _let_go(self, number: int) -> tuple[State, str, str]:
        """The end of a trial without a verdict: one that was paused and has shown nothing since is paused as before."""
        if self._log.rung(number) == self._paused_at.get(number):
            return State.PARTIAL, "PAUSED", self._log.record(number).message
        return UNFINISHED

    def _lost(self, candidate: Candidate, error: WorkerLostError) -> tuple[State, str, str]:
        """The end of a trial that lost its worker; where its student is given up, whatever waits with it ends too."""
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
        """Take stock of what is stored, and give up trials that keep crashing."""
        self._scheduler, self._losses_by_rung, ends = restore_state(self._log, self.rungs, self.objectives, self._open)
        for number, end in ends.items():
            self._end(number, *end)
        self._set_rule()
        in_time = self.budget.seconds is not None or self.budget.device_seconds is not None
        self._proposer.epoch_time = self._scheduler.epoch_time if in_time else None
        self._expect_epoch_times()

    def _report_costs(self, candidate: Candidate, values: Mapping[str, float]) -> Decision:
        self._proposer.learn(candidate.student, values)
        self._filing.mark_constraints(candidate.number, values)
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
        learn_pace(self._scheduler.epoch_time, self._log.record(number))
        self._scheduler.changed()
        self._late = min(self._late, MAX_LATE - 1)  # what is known of the time has changed: one more look
        if report.rung >= self.rungs.top:
            self._log.decide(number, report.rung, self.rungs.reached, unbeaten)
            return self._settle(number, State.COMPLETE, "", self.rungs.reached)
        spent = self.over
        if spent:
            return self._settle(number, State.PARTIAL, "BUDGET", f"{spent}; goes on when the study is resumed")
        if self._scheduler.rule is None:
            return Decision.CONTINUE
        verdict = self._scheduler.after(number, report.rung, known, self._terms(judged=number))
        self._log.decide(number, report.rung, verdict.why, unbeaten)
        if verdict.go_on:
            return Decision.CONTINUE
        state, reason = (State.PRUNED, "RUNG_RULE") if verdict.final else (State.PARTIAL, "PAUSED")
        return self._settle(number, state, reason, verdict.why)

    def _settle(self, number: int, state: State, reason: str, message: str) -> Decision:
        self._verdicts[number] = (state, reason, message)
        return Decision.STOP

    def _end(self, number: int, state: State, reason: str, message: str) -> None:
        self._filing.end(number, state, reason, message)
        self._streak.ended(state, reason, message)
        if reason == "PAUSED":
            self._scheduler.pause(number, self._log.rung(number), self._log.attributes(number).get("rung:0", {}))
        else:
            self._scheduler.changed()
        self.after(number, state)
