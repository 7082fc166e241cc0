"""Results of a study's trials, in the form that the sampler and the rung rules read.

Values at rungs are read from the trial's user attributes ``rung:<k>`` (JSON mapping of metric to value, with the epochs
trained so far as ``epochs``); rung 0 has the known costs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from autodistill.core.records import WORK, Objective

Kind = Literal["complete", "stopped", "running", "failed"]


class StoredTrial(Protocol):
    """Interface of a stored trial; Optuna's ``FrozenTrial`` implements it."""

    @property
    def number(self) -> int:
        """Number of the trial in the study."""

    @property
    def state(self) -> TrialState:
        """Optuna's state of the trial."""

    @property
    def params(self) -> Mapping[str, Any]:
        """Parameter values by name."""

    @property
    def user_attrs(self) -> Mapping[str, Any]:
        """User attributes, including the reports of its rungs."""

    @property
    def values(self) -> Sequence[float] | None:
        """Objective values of a complete trial; ``None`` otherwise."""


@dataclass(frozen=True)
class Outcome:
    """Results of one trial.

    Attributes:
        number: trial number.
        kind: ``complete`` (top rung), ``stopped`` (rung rule, constraint), ``running`` or ``failed``.
        values: parameter values.
        curve: ``(epochs, metric values)`` of rungs 1, 2, … in order; a complete trial without rungs has one entry.
        costs: costs known before training.
        final: objective values of a complete trial.
    """

    number: int
    kind: Kind
    values: Mapping[str, Any]
    curve: tuple[tuple[float, Mapping[str, float]], ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)
    final: Mapping[str, float] = field(default_factory=dict)

    @property
    def rung(self) -> int:
        """Last reported rung; 0 before the first."""
        return len(self.curve)


_KINDS: dict[TrialState, Kind] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.FAIL: "failed",
}


def outcome(trial: StoredTrial, names: Sequence[str]) -> Outcome:
    """Read one trial of a study with these objective ``names``."""
    rungs = _rungs(trial.user_attrs)
    final = dict(zip(names, trial.values or (), strict=False)) if trial.state is TrialState.COMPLETE else {}
    curve = tuple((values.get("epochs", float(k)), values) for k, values in sorted(rungs.items()) if k > 0)
    costs = {name: value for name, value in rungs.get(0, {}).items() if name not in WORK}
    return Outcome(trial.number, _KINDS[trial.state], trial.params, curve, costs, final)


def infer_objectives(study: optuna.Study, cost_names: Sequence[str]) -> tuple[Objective, ...]:
    """Return the objectives of a plain Optuna study.

    They are named by the study's metric names if it has them. Otherwise the first is trained and the rest are the known
    costs, in the order of the cost function; costs beyond the number of directions are not objectives.
    """
    directions: list[Literal["maximize", "minimize"]] = [
        "maximize" if d is StudyDirection.MAXIMIZE else "minimize" for d in study.directions
    ]
    names = list(study.metric_names or ())
    if not names:
        free = [f"objective{i}" for i in range(len(directions))]
        names = [*free[: max(1, len(directions) - len(cost_names))], *cost_names][: len(directions)]
    return tuple(
        Objective(name, direction, "", "known" if name in cost_names else "trained", log=name in cost_names)
        for name, direction in zip(names, directions, strict=True)
    )


def _rungs(attributes: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    out = {}
    for name, value in attributes.items():
        if name.startswith("rung:"):
            values = json.loads(value) if isinstance(value, str) else value
            out[int(name[5:])] = {m: float(v) for m, v in values.items() if _finite(v)}
    return out


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
