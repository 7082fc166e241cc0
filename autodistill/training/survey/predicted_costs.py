"""Costs of students outside the survey: counted when they are considered, with a predicted latency.

The latency is measured when the trial begins, under the measurement lock; until then it is an estimate with its
uncertainty. A student is refused because of a predicted latency only if it clearly violates a constraint: if a latency
two standard deviations better would still violate it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from autodistill.core.errors import InfeasibleError
from autodistill.core.records import LATENCY, Constraint, Estimate, LatencyTarget, Params, SurveyRow
from autodistill.training.costs.cost_memory import FEATURES, CostMemory
from autodistill.training.survey.latency_model import LEAST, LatencyModel, Prediction

_DEVIATIONS = 2.0


class UnsurveyedCosts:
    """Cost function of a study: returns the costs of a student without training it.

    Args:
        metrics: known metrics of the study: counted ones, and ``latency_ms`` if needed.
        shape: ``image_size`` and ``channels`` of the students' input.
        num_classes: number of the students' logits.
        target: latency target.
        memory: stored costs; new ones are added.
        model: predicts latency; ``None`` if latency is not needed, or too few students were measured.
        constraints: constraints of the study; those on ``latency_ms`` are checked against the prediction.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        shape: Mapping[str, int],
        num_classes: int,
        *,
        target: LatencyTarget,
        memory: CostMemory,
        model: LatencyModel | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> None:
        self._metrics = tuple(name for name in metrics if name != LATENCY)
        self._timed = LATENCY in metrics
        self._shape, self._classes, self._target, self._memory = dict(shape), num_classes, target, memory
        self._model = model
        self._bounds = [one for one in constraints if one.metric == LATENCY]

    def __call__(self, student: Params) -> dict[str, float]:
        """Return the counted costs of a student and its latency.

        The latency is the stored one or that of the target's table; otherwise it is predicted, as an ``Estimate``, or
        missing if there is no model.

        Raises:
            InfeasibleError: The student cannot be built, is not in the table, or its predicted latency clearly violates
                a constraint.
        """
        counted = self._counted(student)
        costs = {name: counted[name] for name in self._metrics}
        if not self._timed:
            return costs
        measured = self._memory.get(self._memory.key(student, self._shape, self._classes), (), self._target)
        if measured is not None:
            costs[LATENCY] = measured[LATENCY]
        elif self._target.table is not None:
            from autodistill.training.costs.latency_targets import in_table

            costs[LATENCY] = in_table(student, Path(self._target.table))
        elif self._model is not None:
            predicted = self._model.predict(str(student.get("family", "")), counted)
            self._check(predicted)
            costs[LATENCY] = Estimate(predicted.ms, predicted.deviation)
        return costs

    def _counted(self, student: Params) -> dict[str, float]:
        """Return the counted metrics and ``FEATURES`` of a student, stored or counted now."""
        names = tuple(dict.fromkeys([*self._metrics, *FEATURES]))
        key = self._memory.key(student, self._shape, self._classes)
        known = self._memory.get(key, names, None)
        if known is None:
            from autodistill.training.costs.counts import known_costs
            from autodistill.training.students import build as students
            from autodistill.training.students.resolution import own_shape

            side, channels = self._shape["image_size"], self._shape["channels"]
            model = students.build_student(student, image_size=side, channels=channels, num_classes=self._classes)
            known = known_costs(model, **own_shape(student, self._shape), metrics=names)
            self._memory.put(key, known, self._target)
            self._memory.save()  # saving is faster than counting again when the study is resumed
        return known

    def _check(self, predicted: Prediction) -> None:
        """Refuse a prediction that clearly violates a constraint.

        Raises:
            InfeasibleError: A latency better by two standard deviations would still violate the constraint.
        """
        for bound in self._bounds:
            benefit = _DEVIATIONS if bound.operator == "<=" else -_DEVIATIONS
            if bound.violation({LATENCY: predicted.at_least(benefit)}) > 0:
                raise InfeasibleError(
                    f"{LATENCY} is predicted at {predicted}, the constraint is {bound}; it was not measured.",
                    "INFEASIBLE",
                )


def fitted(
    rows: Sequence[SurveyRow], shape: Mapping[str, int], num_classes: int, memory: CostMemory
) -> LatencyModel | None:
    """Fit the latency model of a survey; return ``None`` if fewer than ``LEAST`` students can be used.

    A student can be used if its latency is not noisy and all of ``FEATURES`` are stored.
    """
    families, features, latencies = [], [], []
    for row in rows:
        counted = memory.get(memory.key(row.student, shape, num_classes), FEATURES, None)
        if counted is not None and LATENCY in row.costs and not row.noisy:
            families.append(str(row.student.get("family", "")))
            features.append(counted)
            latencies.append(row.costs[LATENCY])
    return LatencyModel(families, features, latencies) if len(latencies) >= LEAST else None
