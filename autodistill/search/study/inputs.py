"""The receiving side of a study: what its composition root hands in before and while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from autodistill.core.errors import UsageError
from autodistill.core.records import Constraint, Params, stable_key
from autodistill.search.sampler.proposer import Costs, Proposer
from autodistill.search.space.space import Space
from autodistill.search.study.spending import Spending


class Inputs:
    """What can be handed to a study; see :class:`autodistill.search.study.study.Study`."""

    space: Space
    optuna: optuna.Study
    _spending: Spending
    _proposer: Proposer
    _kept_back: float
    _late: int
    constraints: tuple[Constraint, ...]

    def _bind(self) -> None:
        """See :class:`autodistill.search.study.study.Study`."""
        raise NotImplementedError

    def set_teacher_values(self, values: Mapping[str, float]) -> None:
        """Record the teacher's own metrics: for pictures and tables, and for bounds that depend on its accuracy.

        Once students were trained the accuracy stays: a bound must not move when another machine rounds otherwise.

        Raises:
            UsageError: a constraint needs an accuracy that is no fraction.
        """
        values, earlier = dict(values), dict(self.optuna.user_attrs.get("teacher", {}))
        if "accuracy" in earlier and self._spending.spent.epochs > 0:
            values["accuracy"] = earlier["accuracy"]
        needed = [str(one) for one in self.constraints if one.below is not None]
        if needed and "accuracy" in values and not 0 <= values["accuracy"] <= 1:
            raise UsageError(
                f"the teacher's accuracy is {values['accuracy']:g}, and the constraint '{needed[0]}' needs a fraction, "
                "from 0 to 1; divide percent by 100."
            )
        self.optuna.set_user_attr("teacher", values)
        self._bind()

    def set_known_costs(self, rows: Sequence[tuple[Params, Mapping[str, float]]], costs: Costs | None = None) -> None:
        """Hand in what is known before training: surveyed students with their costs, and a function for others."""
        self._proposer.set_known_costs(rows, costs)
        self._expect_epoch_times()

    def expect_epoch_times(self, timed: Sequence[tuple[Params, float]]) -> None:
        """Hand in seconds per epoch of students that were timed for a few steps, before any trial has run.

        Args:
            timed: student settings and seconds; they are used as soon as the students' known costs are.
        """
        self._proposer.timed = tuple(timed)

    def _expect_epoch_times(self) -> None:
        if self._proposer.epoch_time is not None:
            self._proposer.epoch_time.expect(self._proposer.timed_costs())

    def forbid(self, student: Params, why: str) -> None:
        """Never propose a student in this run, whatever its recipe.

        Args:
            student: its architecture.
            why: for the trials that are refused.
        """
        self._proposer.forbid(student, why)

    def is_forbidden(self, student: Params) -> bool:
        """Whether a student is never proposed because it kills the worker that trains it."""
        return stable_key(student) in self._proposer.forbidden

    def enqueue(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        """Put a candidate of your own at the head of the queue.

        Args:
            sections: ``{"student": {…}, "distillation": {…}, "train": {…}}``, every active parameter given.

        Raises:
            ConfigError: it is not in the space.
        """
        self.space.check_names(sections)
        self._proposer.enqueue(self.space.flatten(sections))

    def use_devices(self, each: float) -> None:
        """Count the device time of workers that take ``each`` devices: 2 for two GPUs, 0.25 where four share one."""
        self._spending.use(each)

    def charge(self, seconds: float) -> None:
        """Count time that went into the study before it was opened."""
        if seconds:
            self._spending.charge_time(seconds)

    def keep_back(self, seconds: float) -> None:
        """Keep the last ``seconds`` of the time budget for something else, e.g. to verify the front; 0 frees them."""
        self._kept_back, self._late = max(0.0, seconds), 0
