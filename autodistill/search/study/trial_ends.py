"""Recording of trial ends: state, reason code and message to the log, values to Optuna, counts to the spending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna.trial import TrialState

from autodistill.core.records import Constraint, Objective, Report, State, certain
from autodistill.search.storage import variants
from autodistill.search.storage.trial_log import TrialLog
from autodistill.search.study.end_states import kept
from autodistill.search.study.spending import Spending

FREE = ("INFEASIBLE", "INFEASIBLE_BUILD", "CRASH", "DUPLICATE", "OUTSIDE", "TIME", "BUDGET", "INTERRUPTED", "IMAGES")
"""Reason codes of ends that do not count towards a budget of trials."""


ENDED = (State.COMPLETE, State.PRUNED, State.FAIL)


class TrialEnds:
    """Recorder of trial ends.

    Args:
        log: trials of the study.
        spending: spending of the study.
        objectives: objectives whose values are passed to Optuna, in order.
        constraints: constraints whose violations are stored for Optuna's samplers and the dashboard.
        top: number of the top rung.
    """

    def __init__(
        self,
        log: TrialLog,
        spending: Spending,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        *,
        top: int,
    ) -> None:
        self._log, self._spending, self._top = log, spending, top
        self._objectives, self.constraints = objectives, tuple(constraints)

    def end(self, number: int, state: State, reason: str, message: str) -> None:
        """Record an end. A PARTIAL trial stays open in Optuna, so that it keeps its number."""
        self._count(number, state, reason)  # first, so that the stored spending includes this trial once
        self._log.change(number, "reason", reason)
        self._log.change(number, "message", message[:2000])
        self._log.set(number, "spent", self._spending.spent.to_json())
        self._log.set(number, "state", state.value)  # last: until then the trial counts as running, and ends anew
        if state is State.COMPLETE:
            attributes = self._log.attributes(number)
            top = {**attributes.get("rung:0", {}), **attributes[f"rung:{self._top}"]}
            self.mark_constraints(number, top)
            self._log.end(number, TrialState.COMPLETE, [top[o.name] for o in self._objectives])
        elif state is not State.PARTIAL:
            self._log.end(number, TrialState.PRUNED if state is State.PRUNED else TrialState.FAIL)
        self._log.note(number)
        self._spending.save()

    def costs(self, number: int, costs: Mapping[str, float]) -> None:
        """Store the known costs of a refused trial; predicted costs are left out."""
        if costs:
            self._log.set(number, "rung:0", kept(certain(costs)))
            self.mark_constraints(number, certain(costs))

    def rung(self, number: int, report: Report) -> None:
        """Store the report of a rung and the other forms of the student."""
        work = {"epochs": report.epochs, "seconds": report.seconds}
        if report.teacher_seconds is not None:
            work["teacher_seconds"] = report.teacher_seconds
        self._log.set(number, f"rung:{report.rung}", {**report.values, **work}, with_study=self._spending.to_save())
        if report.noisy != self._log.attributes(number).get("noisy", False):  # a resumed trial is measured again
            self._log.set(number, "noisy", report.noisy)
        for name, facts in report.variants.items():
            self._log.set(number, variants.PREFIX + name, variants.stored(facts, self._objectives, self.constraints))

    def counted(self) -> int:
        """Return the number of stored trials that count towards a budget of trials."""
        return sum(
            bool(self._log.attributes(t.number).get("counted")) or (t.state in ENDED and t.reason not in FREE)
            for t in self._log.read()
        )

    def mark_constraints(self, number: int, values: Mapping[str, float]) -> None:
        """Store the known violations: first those of the costs, at the end all."""
        if self.constraints:
            self._log.set_constraints(number, [c.violation(values) for c in self.constraints])

    def _count(self, number: int, state: State, reason: str) -> None:
        """Count a trial once, when it is first paused or ends."""
        if reason in FREE or self._log.attributes(number).get("counted"):
            return
        if state is State.PARTIAL:  # an ended trial accepts no attributes, and is not counted again
            self._log.set(number, "counted", True)
        self._spending.count_trial()
