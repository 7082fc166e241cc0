"""Objectives and constraints by name: possible axes of the front, with direction, unit and stage."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import Any

from autodistill.core.errors import ConfigError, UnknownNameError, UsageError
from autodistill.core.records import LATENCY, WORK, Constraint, Objective
from autodistill.core.registry import Registry

objectives: Registry[Objective] = Registry("objective", "autodistill.objectives")

DEFAULT = ("accuracy", "params", LATENCY)


def _register(objective: Objective) -> Objective:
    return objectives.register(objective.name)(objective)


_register(Objective("accuracy", "maximize", "fraction", "trained", description="validation accuracy"))
_register(Objective("loss", "minimize", "nats", "trained", description="validation cross-entropy"))
_register(Objective("agreement", "maximize", "fraction", "trained", description="share of the teacher's top-1 labels"))
_register(Objective("balanced_accuracy", "maximize", "fraction", "trained", description="mean recall of the classes"))
_register(Objective("worst_recall", "maximize", "fraction", "trained", description="recall of the worst class"))
_register(Objective("macro_f1", "maximize", "fraction", "trained", description="mean F1 score of the classes"))
_register(Objective("worst_f1", "maximize", "fraction", "trained", description="F1 score of the worst label"))
_register(Objective("micro_f1", "maximize", "fraction", "trained", description="F1 score of all labels together"))
_register(Objective("macro_recall", "maximize", "fraction", "trained", description="mean recall of the labels"))
_register(Objective("top5_accuracy", "maximize", "fraction", "trained", description="label among the top five"))
_register(Objective("auroc", "maximize", "fraction", "trained", description="area under the ROC curve"))
_register(
    Objective(
        "average_precision", "maximize", "fraction", "trained", description="mAP: mean over the classes or labels"
    )
)
_register(Objective("log_loss", "minimize", "nats", "trained", description="cross-entropy, the same number as loss"))
_register(Objective("ece", "minimize", "fraction", "trained", description="expected calibration error"))
_register(Objective("params", "minimize", "count", "known", log=True, description="parameters of the deployed form"))
_register(Objective("macs", "minimize", "count", "known", log=True, description="multiply-accumulates of one image"))
_register(Objective("activations", "minimize", "count", "known", log=True, description="elements written by layers"))
_register(
    Objective("bytes", "minimize", "bytes", "known", log=True, description="safetensors file of the deployed form")
)
_register(Objective("onnx_bytes", "minimize", "bytes", "known", log=True, description="ONNX file of the deployed form"))
_register(
    Objective("peak_memory_mb", "minimize", "MB", "known", log=True, description="peak memory of one forward pass")
)
_register(Objective(LATENCY, "minimize", "ms", "known", log=True, description="p50 latency on the target"))

_CONSTRAINT = re.compile(r"\s*([A-Za-z_][\w:.]*)\s*(<=|>=|<|>|==|=)\s*(\S+|.*teacher.*?)\s*")
_TEACHER = re.compile(r"teacher(?:\s*([-+])\s*(\S+))?")


def resolve(names: Sequence[str | Objective], *, measured: Collection[str] = ()) -> tuple[Objective, ...]:
    """Return objectives by name, in order; ``"energy:minimize"`` (or ``"energy:minimize:trained"``) declares a new one.

    Args:
        names: of the objectives.
        measured: names of measures of the study's own: a new objective of such a name is trained.

    Raises:
        ConfigError: there is none, or a name is unknown, given twice, or reserved for the work of a trial.
    """
    problems: list[str] = []
    out: list[Objective] = []
    for name in names:
        try:
            out.append(name if isinstance(name, Objective) else _resolve_one(name, measured))
        except UsageError as error:
            problems.append(str(error))
    problems += [f"objective {o.name!r} {_taken(o.name)}" for o in out if o.name in WORK]
    doubled = sorted({o.name for o in out if [p.name for p in out].count(o.name) > 1})
    problems += [f"objective {name!r} is given twice; keep one" for name in doubled]
    if not names:
        problems.append(f"no objective given; the default is {','.join(DEFAULT)}")
    if problems:
        raise ConfigError(problems, "objectives")
    return tuple(out)


def spared(objective: Objective, values: Sequence[float]) -> tuple[float, float]:
    """Return the best and the worst of ``values`` with a margin of 10 %, so that the worst still adds to a front.

    With the worst value itself as the reference, its student would add no hypervolume, however accurate it is.
    """
    low, high = min(values), max(values)
    spare = 0.1 * ((high - low) or abs(high) or 1.0)
    if objective.log and low > 0:
        low, high = low / 1.1, high * 1.1
    else:
        low, high = low - spare, high + spare
    return (high, low) if objective.direction == "maximize" else (low, high)


def worst_wanted(constraints: Sequence[Constraint], objectives: Sequence[Objective]) -> dict[str, float]:
    """Return by name the worst wanted value of each objective that a constraint bounds on its worse side."""
    wanted: dict[str, float] = {}
    for objective in objectives:
        operator = ">=" if objective.direction == "maximize" else "<="
        mine = [c for c in constraints if (c.metric, c.operator) == (objective.name, operator)]
        bounds = [c.bound for c in mine if not math.isnan(c.bound)]
        if bounds:
            wanted[objective.name] = min(bounds, key=objective.loss)
    return wanted


def _resolve_one(text: str, measured: Collection[str]) -> Objective:
    name, *rest = text.split(":")
    if not rest and name in measured:
        raise UsageError(f"objective {name!r} needs a direction: write {name}:maximize or {name}:minimize")
    if not rest:
        return objectives.get(name)
    direction, stage = rest[0], rest[1] if len(rest) > 1 else "trained" if name in measured else "known"
    if direction not in ("minimize", "maximize"):
        raise UnknownNameError("direction", direction, ("minimize", "maximize"), f"Found in objective {text!r}.")
    if stage not in ("known", "trained"):
        raise UnknownNameError("stage", stage, ("known", "trained"), f"Found in objective {text!r}.")
    return Objective(name, direction, "", stage, log=False)  # type: ignore[arg-type]


def _taken(name: str) -> str:
    return f"has a reserved name: every trial stores its {name} of work under it; rename it, e.g. to 'training_{name}'"


def asked_cost(objectives: Sequence[Objective]) -> Objective | None:
    """Return the cost that users bound first: latency if it is an objective, else the first minimised one."""
    small = [o for o in objectives[1:] if o.direction == "minimize"]
    return next((o for o in small if o.name == LATENCY), small[0] if small else None)


def parse_constraint(text: Any, names: Sequence[str] | None = None) -> Constraint:
    """Parse a constraint such as ``"params <= 1e6"`` or ``"accuracy >= teacher - 0.05"``.

    Args:
        text: metric, ``<=`` or ``>=``, number; or ``accuracy >= teacher`` less a fraction.
        names: metrics that may be constrained; ``None`` allows all registered objectives.

    Raises:
        UsageError: the form is invalid, or the metric is unknown or reserved for the work of a trial.
    """
    match = _CONSTRAINT.fullmatch(str(text))
    if match is None:
        raise UsageError(f"constraint {text!r} is not of the form 'metric <= number', e.g. 'params <= 1e6'.")
    metric, operator, bound = match.groups()
    if operator not in ("<=", ">="):
        raise UsageError(f"constraint {text!r} uses {operator!r}; use <= or >=.")
    if metric in WORK:
        raise UsageError(f"constraint {text!r}: {metric!r} {_taken(metric)}.")
    allowed = objectives.names() if names is None else tuple(names)
    if metric not in allowed:
        raise UnknownNameError("metric", metric, allowed, f"Found in constraint {text!r}.")
    if "teacher" in bound:
        return _below_teacher(text, metric, operator, bound)
    try:
        number = float(bound.replace("_", ""))
    except ValueError:
        raise UsageError(f"constraint {text!r}: {bound!r} is not a number; write e.g. 1e6 or 250000.") from None
    return Constraint(metric, operator, number)  # type: ignore[arg-type]


def _below_teacher(text: Any, metric: str, operator: str, bound: str) -> Constraint:
    """Parse a constraint with a bound such as ``teacher - 0.05``.

    Raises:
        UsageError: metric, operator or form is another one, or percent is given instead of a fraction.
    """
    head = f"constraint {text!r}"
    if metric != "accuracy":
        raise UsageError(
            f"{head}: only accuracy can be bounded by the teacher's, e.g. 'accuracy >= teacher - 0.05'; "
            f"write a number for {metric}."
        )
    if operator != ">=":
        raise UsageError(f"{head} uses {operator!r}; use >=: it says how far below its teacher a student may be.")
    match = _TEACHER.fullmatch(bound)
    if match is None:
        raise UsageError(f"{head}: {bound!r} is not of the form 'teacher - 0.05' (5 points below the teacher).")
    sign, less = match.groups(default="0")
    try:
        below = float(less.replace("_", "")) * (-1.0 if sign == "+" else 1.0)
    except ValueError:
        raise UsageError(f"{head}: {less!r} is not a number; write e.g. 'teacher - 0.05' for 5 points.") from None
    if not abs(below) < 1:
        meant = f"; write {sign} {abs(below) / 100:g} for {abs(below):g} points" if abs(below) <= 100 else ""
        raise UsageError(f"{head}: accuracy is a fraction, from 0 to 1{meant}.")
    return Constraint("accuracy", ">=", math.nan, below)


def mistaken(constraint: Constraint) -> str:
    """Return why a bound on a fraction is always or never satisfied, as it is not between 0 and 1; empty if valid."""
    metric, bound = constraint.metric, constraint.bound
    if (
        constraint.below is not None
        or metric not in objectives
        or objectives.get(metric).unit != "fraction"
        or 0 <= bound <= 1
    ):
        return ""
    meant = f"; write {constraint.operator} {bound / 100:g} for {bound:g} %" if 1 < bound <= 100 else ""
    return f"constraint '{constraint}': {metric} is a fraction, from 0 to 1{meant}."
