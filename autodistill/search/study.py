"""The passive study: it answers ``ask``, ``report`` and ``close``; engines call it, it calls nobody.

It owns budget, sampler, rungs and the store. Every trial ends in exactly one state with a reason code:

========================  =========================================================================================
COMPLETE                  reached the top rung; only these are on the front
PRUNED                    ``RUNG_RULE`` stopped by comparison · ``INFEASIBLE`` breaks a constraint ·
                          ``INFEASIBLE_BUILD`` cannot be built · ``DUPLICATE`` proposed before
FAIL                      ``NAN`` · ``NON_FINITE`` · ``OOM`` · ``WORKER_LOST`` · ``ATTEMPTS`` · ``ERROR``
PARTIAL                   ``BUDGET`` or ``INTERRUPTED``: goes on from its checkpoint when the study is resumed
========================  =========================================================================================
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from autodistill.records import (
    Candidate,
    Constraint,
    Decision,
    Objective,
    Params,
    Report,
    State,
    TrialRecord,
)
from autodistill.search import sampler as samplers
from autodistill.search.budget import Budget, Spent
from autodistill.search.front import Front, Scale, axis_losses, propose_scale
from autodistill.search.ledger import Ledger
from autodistill.search.proposer import Costs, Proposer, broken_constraints
from autodistill.search.rungs import Rungs, Verdict
from autodistill.search.space import Space
from autodistill.search.stopping import check_failures, first_rung_seconds
from autodistill.search.trial_log import TrialLog
from autodistill.search.verdicts import is_valid, verdict_of

MAX_REJECTED = 50  # proposals refused in a row before the space counts as exhausted
MAX_ATTEMPTS = 3  # times a trial may be interrupted by a crash before it is given up


class Study:
    """One search: its space, what it has tried, and what it may still spend.

    Use :meth:`open` or :meth:`create`; the constructor is for tests and for building on top.

    Args:
        storage: Optuna storage; the study called ``name`` in it is created or resumed.
        name: the study's name.
        space: what may be proposed.
        objectives: axes of the front, in order.
        constraints: bounds on metrics; those on known costs reject a candidate before training.
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
        sampler: str | optuna.samplers.BaseSampler = "front",
        rungs: Rungs | None = None,
        seed: int = 0,
        directory: Path | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # one line per trial is the engines' to print
        self.name, self.space, self.directory, self.seed = name, space, directory, seed
        self.objectives, self.constraints = tuple(objectives), tuple(constraints)
        self.rungs = rungs or Rungs((1,), stopping=False)
        self.optuna = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[o.direction for o in self.objectives],
            load_if_exists=True,
        )
        with warnings.catch_warnings():  # experimental since 3.2; it is what names the axes in the dashboard
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.optuna.set_metric_names([o.name for o in self.objectives])
        self.config: Any = None
        self.budget = Budget()
        self.ended = ""
        self.after: Callable[[int, State], None] = _nothing
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
        self._resumable: list[TrialRecord] = []
        self._ledger = Ledger(self.optuna)

    # -- opening -------------------------------------------------------------------------------------------------

    @staticmethod
    def open(source: Any, **changes: Any) -> Study:
        """Create or resume the study of a study file, a study folder or a mapping of its keys.

        Args:
            source: path of ``study.yaml``, folder of a study, or a mapping.
            changes: keys that override the file, e.g. ``directory=``, ``budget=``.

        Raises:
            ConfigError: problems in the configuration, all at once.
            UsageError: the folder holds another study; the differing keys are named.
        """
        from autodistill.search.opening import open_study

        return open_study(source, changes)

    @staticmethod
    def create(**keys: Any) -> Study:
        """Create (or resume) a study from keywords, the keys of a study file: ``data=, teacher=, space=, …``.

        ``directory=None`` keeps it in memory.
        """
        from autodistill.search.opening import open_study

        return open_study(keys, {})

    # -- the contract with engines ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self, budget: Budget | str | None = None) -> Iterator[Study]:
        """Spend time: the clock of the budget runs inside, and interrupted trials may be taken up again.

        Args:
            budget: limits over the whole life of the study; ``None`` keeps those it has.
        """
        if budget is not None:
            self.budget = Budget.parse(budget)
        self._ledger.start()
        self.ended = ""
        self._reconcile()
        self._proposer.renew()
        try:
            yield self
        finally:
            self._ledger.stop()

    def ask(self) -> Candidate | None:
        """The next candidate, or ``None`` when the budget or the space is exhausted (``ended`` says which).

        Raises:
            UserCodeError: the last trials all failed in the same way.
        """
        check_failures(self.trials())
        for _ in range(MAX_REJECTED):
            self.ended = self._why_no_more()
            if self.ended:
                return None
            if self._resumable:
                return self._take_up(self._resumable.pop(0))
            try:
                candidate = self._propose()
            except samplers.ExhaustedError as error:
                self.ended = f"space exhausted: {error}"
                for number in self._log.without_candidate():  # Optuna opens a trial before it asks the sampler
                    self._end(number, State.PRUNED, "DUPLICATE", self.ended)
                return None
            if candidate is not None:
                self._open[candidate.number] = candidate
                return candidate
        self.ended = f"space exhausted: the last {MAX_REJECTED} proposals were infeasible or known already"
        return None

    def report(self, candidate: Candidate, report: Report) -> Decision:
        """Take what a rung showed and say whether the trial goes on."""
        number = candidate.number
        bad = [f"{k}={v}" for k, v in report.values.items() if not is_valid(k, v, self.objectives)]
        if bad:
            return self._settle(number, State.FAIL, "NON_FINITE", f"rung {report.rung} reported {', '.join(bad)}")
        self._ledger.account(report, self._log.attributes(number))
        self._log.set(
            number, f"rung:{report.rung}", {**report.values, "epochs": report.epochs, "seconds": report.seconds}
        )
        if report.rung == 0:
            return self._report_costs(candidate, report.values)
        verdict = self._judge(number, report)
        if report.rung >= self.rungs.top:
            return self._settle(number, State.COMPLETE, "", verdict.why)
        if not verdict.go_on:
            return self._settle(number, State.PRUNED, "RUNG_RULE", verdict.why)
        spent = self.budget.exhausted(self.spent)
        if spent:
            return self._settle(number, State.PARTIAL, "BUDGET", f"{spent}; goes on when the study is resumed")
        return Decision.CONTINUE

    def close(self, candidate: Candidate, error: BaseException | None = None) -> State:
        """End a trial: by the verdict of its last report, or by the error that ended it."""
        number = candidate.number
        if error is not None and self._verdicts.get(number, (State.RUNNING,))[0] is not State.COMPLETE:
            self._verdicts[number] = verdict_of(error, self.budget.exhausted(self.spent))
        state, reason, message = self._verdicts.pop(
            number, (State.PARTIAL, "INTERRUPTED", "stopped before its next rung; goes on when the study is resumed")
        )
        self._open.pop(number, None)
        self._end(number, state, reason, message)
        return state

    # -- readers -----------------------------------------------------------------------------------------------------

    def trials(self) -> list[TrialRecord]:
        """All trials, by number."""
        return self._log.read()

    def front(self) -> Front:
        """The Pareto front of the COMPLETE trials that satisfy every constraint."""
        feasible = [t for t in self.trials() if all(c.violation(_last(t)) <= 0 for c in self.constraints)]
        return Front.of(
            self.name,
            self.objectives,
            feasible,
            scale=self.scale(),
            teacher=self.teacher_values(),
            directory=self.directory,
        )

    @property
    def spent(self) -> Spent:
        """Spent so far, over all resumes."""
        return self._ledger.spent

    def scale(self) -> Scale | None:
        """The recorded box of the hypervolume; recorded at the first moment every objective has been seen."""
        stored = self.optuna.user_attrs.get("scale")
        if stored is not None:
            return Scale(tuple(stored["ideal"]), tuple(stored["reference"]))
        seen = [*self._proposer.known_costs(), *(_last(t) for t in self.trials())]
        scale = propose_scale(self.objectives, seen) if len(seen) >= 4 else None
        if scale is not None and self._ledger.running:
            self.optuna.set_user_attr("scale", {"ideal": list(scale.ideal), "reference": list(scale.reference)})
        return scale

    def teacher_values(self) -> dict[str, float]:
        """Metrics of the teacher as the preflight measured them; empty before."""
        return dict(self.optuna.user_attrs.get("teacher", {}))

    # -- what the composition root hands in ----------------------------------------------------------------------------

    def set_teacher_values(self, values: Mapping[str, float]) -> None:
        """Record the teacher's own metrics, for the picture and the tables."""
        self.optuna.set_user_attr("teacher", dict(values))

    def set_known_costs(self, rows: Sequence[tuple[Params, Mapping[str, float]]], costs: Costs | None = None) -> None:
        """Hand in what is known before training: surveyed students with their costs, and a function for others."""
        self._proposer.set_known_costs(rows, costs)

    def enqueue(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        """Put a candidate of your own at the head of the queue.

        Args:
            sections: ``{"student": {…}, "distillation": {…}, "train": {…}}``, every active parameter given.

        Raises:
            ConfigError: it is not in the space.
        """
        self.optuna.enqueue_trial(self.space.flatten(sections))

    # -- private -------------------------------------------------------------------------------------------------------

    def _propose(self) -> Candidate | None:
        """One new trial, or ``None`` when the proposal was refused (and is stored as such)."""
        proposal = self._proposer.propose()
        number = proposal.candidate.number
        if proposal.costs and proposal.refusal is not None:
            self._log.set(number, "rung:0", dict(proposal.costs))
            self._mark_constraints(number, proposal.costs)
        if proposal.refusal is None:
            return proposal.candidate
        self._end(number, State.PRUNED, *proposal.refusal)
        return None

    def _take_up(self, record: TrialRecord) -> Candidate:
        """Go on with an interrupted trial, under its own number."""
        number = record.number
        self._log.set(number, "state", State.RUNNING.value)
        attempts = int(self._log.attributes(number).get("attempts", 1)) + 1
        self._log.set(number, "attempts", attempts)
        candidate = Candidate(
            number,
            record.student,
            record.distillation,
            record.train,
            record.seed,
            start_rung=max(record.rungs, default=0),
        )
        self._open[number] = candidate
        return candidate

    def _reconcile(self) -> None:
        """Take stock of trials that an earlier driver left open; give up those that keep crashing."""
        self._resumable = []
        for record in self.trials():
            if record.state not in (State.RUNNING, State.PARTIAL) or record.number in self._open:
                continue
            attributes = self._log.attributes(record.number)
            if not record.student:  # died between ask and the first write: nothing to go on with
                self._end(record.number, State.FAIL, "WORKER_LOST", "the driver ended before the trial began")
            elif record.state is State.RUNNING and attributes.get("attempts", 1) >= MAX_ATTEMPTS:
                self._end(record.number, State.FAIL, "ATTEMPTS", f"did not survive {MAX_ATTEMPTS} attempts")
            else:
                self._resumable.append(record)

    def _why_no_more(self) -> str:
        spent, records = self.spent, self.trials()
        reason = self.budget.exhausted(
            Spent(spent.seconds, spent.trials + len(self._open), spent.epochs, spent.device_seconds)
        )
        if reason:
            return reason
        if not self._resumable and self._proposer.exhausted:
            return f"space exhausted: all {self._log.distinct()} candidates are tried"
        left = None if self.budget.seconds is None else self.budget.seconds - spent.seconds
        if left is not None and left < first_rung_seconds(records):
            return "too little time is left for another trial to reach its first rung"
        return ""

    def _report_costs(self, candidate: Candidate, values: Mapping[str, float]) -> Decision:
        self._proposer.learn(candidate.student, values)
        self._mark_constraints(candidate.number, values)
        broken = broken_constraints(self.constraints, values)
        if broken:
            return self._settle(candidate.number, State.PRUNED, "INFEASIBLE", broken)
        return Decision.CONTINUE

    def _mark_constraints(self, number: int, values: Mapping[str, float]) -> None:
        """Write the violations where Optuna's samplers and the dashboard look for them."""
        if self.constraints:
            self._log.set_constraints(number, [c.violation(values) for c in self.constraints])

    def _judge(self, number: int, report: Report) -> Verdict:
        others = [t for t in self.trials() if t.number != number and report.rung in t.rungs]
        rows = axis_losses(self.objectives, [self._at(t.rungs, report.rung) for t in others])
        own_rungs = {0: self._log.attributes(number).get("rung:0", {}), report.rung: report.values}
        own = axis_losses(self.objectives, [self._at(own_rungs, report.rung)])[0]
        return self.rungs.decide(report.rung, own.tolist(), rows.tolist())

    @staticmethod
    def _at(rungs: Mapping[int, Mapping[str, float]], rung: int) -> dict[str, float]:
        return {**rungs.get(0, {}), **rungs[rung]}

    def _settle(self, number: int, state: State, reason: str, message: str) -> Decision:
        self._verdicts[number] = (state, reason, message)
        return Decision.STOP

    def _end(self, number: int, state: State, reason: str, message: str) -> None:
        self._log.set(number, "state", state.value)
        self._log.set(number, "reason", reason)
        self._log.set(number, "message", message[:2000])
        if state is State.COMPLETE:
            attributes = self._log.attributes(number)
            top = self._at({0: attributes.get("rung:0", {}), 1: attributes[f"rung:{self.rungs.top}"]}, 1)
            self._log.end(number, TrialState.COMPLETE, [top[o.name] for o in self.objectives])
        elif state is not State.PARTIAL:  # a PARTIAL trial stays open in Optuna, so that it keeps its number
            self._log.end(number, TrialState.PRUNED if state is State.PRUNED else TrialState.FAIL)
        free = reason in ("INFEASIBLE", "INFEASIBLE_BUILD", "DUPLICATE")
        if state is not State.PARTIAL and not free:
            self._ledger.count_trial()
        self._ledger.save()
        self.after(number, state)


def _nothing(number: int, state: State) -> None:
    """What is done after a trial when nobody asks for more."""


def _last(trial: TrialRecord) -> dict[str, float]:
    """Known costs and the values of the highest rung, later ones over earlier ones."""
    out: dict[str, float] = {}
    for rung in sorted(trial.rungs):
        out.update(trial.rungs[rung])
    return {**out, **trial.values}
