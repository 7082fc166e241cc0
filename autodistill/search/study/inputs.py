"""The receiving side of a study: values that its composition root passes in before and during a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from autodistill.core.errors import ConfigError, UsageError
from autodistill.core.records import Constraint, Params, stable_key
from autodistill.search.sampler.proposer import Costs, Proposer
from autodistill.search.space.space import Space
from autodistill.search.study.spending import Spending


class Inputs:
    """Mixin with the setters of a study; see :class:`autodistill.search.study.study.Study`."""

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
        """Record the teacher's metrics, for figures and tables and for bounds relative to its accuracy.

        The accuracy is fixed once students were trained: a bound must not change if another machine rounds differently.

        Raises:
            UsageError: a constraint needs the teacher's accuracy, and it is not between 0 and 1.
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
        """Set the surveyed students with their costs, and a function that predicts the costs of other students."""
        self._proposer.set_known_costs(rows, costs)
        self._expect_epoch_times()

    def expect_epoch_times(self, timed: Sequence[tuple[Params, float]]) -> None:
        """Set the seconds per epoch of students that were timed for a few steps before any trial has run.

        Args:
            timed: student settings and seconds per epoch; used once the known costs of the students are set.
        """
        self._proposer.timed = tuple(timed)

    def _expect_epoch_times(self) -> None:
        if self._proposer.epoch_time is not None:
            self._proposer.epoch_time.expect(self._proposer.timed_costs())

    def forbid(self, student: Params, why: str) -> None:
        """Exclude a student from this run, with every recipe.

        Args:
            student: its architecture.
            why: message for the trials that are refused.
        """
        self._proposer.forbid(student, why)

    def is_forbidden(self, student: Params) -> bool:
        """Return whether a student is excluded because it kills the worker that trains it."""
        return stable_key(student) in self._proposer.forbidden

    def enqueue(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        """Put a candidate at the head of the queue.

        Args:
            sections: ``{"student": {…}, "distillation": {…}, "train": {…}}`` with every active parameter.

        Raises:
            ConfigError: the candidate is not in the space, or one of its settings is fixed to another value there.
        """
        self.space.check_names(sections)
        values = self.space.flatten(sections)
        made = self.space.nest(values)
        problems = [
            f"{section}.{key}: {value!r} was given, but with these settings it can only be {made[section][key]!r}"
            for section, settings in sections.items()
            for key, value in settings.items()
            if key in made[section] and made[section][key] != value
        ]
        if problems:
            raise ConfigError(problems, "candidate")
        self._proposer.enqueue(values)

    def use_devices(self, each: float) -> None:
        """Set the devices per worker, for device time: 2 for two GPUs, 0.25 if four workers share one GPU."""
        self._spending.use(each)

    def charge(self, seconds: float) -> None:
        """Add ``seconds`` that were spent on the study before it was opened."""
        if seconds:
            self._spending.charge_time(seconds)

    def keep_back(self, seconds: float) -> None:
        """Reserve the last ``seconds`` of the time budget, e.g. to verify the front; 0 releases them."""
        self._kept_back, self._late = max(0.0, seconds), 0
