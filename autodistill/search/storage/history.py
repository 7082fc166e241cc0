"""What a study's trials have shown, as the sampler and the rung rule see it.

Low-fidelity values are read from the trial's user attributes ``rung:<k>`` (JSON mapping of metric to value, with the
epochs trained so far under ``epochs``); rung 0 holds the known costs.
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
    """What is read of a trial: Optuna's ``FrozenTrial`` is one."""

    @property
    def number(self) -> int:
        """Its number in the study."""

    @property
    def state(self) -> TrialState:
        """Where it stands."""

    @property
    def params(self) -> Mapping[str, Any]:
        """Parameter values."""

    @property
    def user_attrs(self) -> Mapping[str, Any]:
        """Reports of its rungs, among others."""

    @property
    def values(self) -> Sequence[float] | None:
        """Objective values, where it is complete."""


@dataclass(frozen=True)
class Outcome:
    """One trial.

    Attributes:
        number: trial number.
        kind: ``complete`` (top rung), ``stopped`` (rung rule, constraint), ``running`` or ``failed``.
        values: its parameters.
        curve: ``(epochs, metric values)`` of rungs 1, 2, … in order; a complete trial without rungs has one entry.
        costs: what was known before training.
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
        """The last rung it has reported; 0 before the first."""
        return len(self.curve)


_KINDS: dict[TrialState, Kind] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.FAIL: "failed",
}


def outcome(trial: StoredTrial, names: Sequence[str]) -> Outcome:
    """Read one trial of a study whose objectives are called ``names``."""
    rungs = _rungs(trial.user_attrs)
    final = dict(zip(names, trial.values or (), strict=False)) if trial.state is TrialState.COMPLETE else {}
    curve = tuple((values.get("epochs", float(k)), values) for k, values in sorted(rungs.items()) if k > 0)
    costs = {name: value for name, value in rungs.get(0, {}).items() if name not in WORK}
    return Outcome(trial.number, _KINDS[trial.state], trial.params, curve, costs, final)


def infer_objectives(study: optuna.Study, cost_names: Sequence[str]) -> tuple[Objective, ...]:
    """Objectives of a plain Optuna study.

    By metric names where the study has them; otherwise the first is trained and the rest are the known costs, in the
    order in which the cost function gives them; costs beyond the number of directions are no objectives.
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
