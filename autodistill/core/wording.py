"""Texts about candidates and trials, for tables, progress lines and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from autodistill.core.records import Constraint, LatencyTarget, Params, State, TrialRecord


def student_words(student: Params) -> str:
    """Format a student: ``{"family": "resnet", "width": 16}`` as ``resnet width=16``."""
    rest = [f"{key}={_short(value)}" for key, value in student.items() if key not in ("family", "model")]
    head = str(student.get("model") or student.get("family") or "")
    return one_line(" ".join([head, *rest] if head else rest))


def distillation_words(distillation: Params) -> str:
    """Format a loss mix: ``{"loss": "kd", "temperature": 4.0, "alpha": 0.7}`` as ``kd temperature=4 alpha=0.7``."""
    rest = [f"{key}={_short(value)}" for key, value in distillation.items() if key != "loss" and value is not None]
    return one_line(" ".join([str(distillation.get("loss", "")), *rest]).strip())


def setting_words(value: Any) -> str:
    """Format a parameter value: ``0.019999999953948307`` as ``0.02``."""
    return f"{value:.4g}" if isinstance(value, float) else one_line(value)


def one_line(value: object) -> str:
    """Return a stored name as one line of printable characters; any other character becomes U+FFFD."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(value))


def counted(count: int, noun: str) -> str:
    """Format a count with its noun: ``1 student``, ``2 students``, ``0 trials``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def latency_words(target: LatencyTarget) -> str:
    """Format a latency target: ``torch on cpu, batch 1, fp32, 1 thread``."""
    threads = counted(target.threads, "thread")
    return f"{target.runtime} on {target.device}, batch {target.batch}, {target.precision}, {threads}"


def students_counted(members: Sequence[TrialRecord]) -> str:
    """Count the students: ``5 students``, or ``5 students in 7 forms`` if some are listed in fp32 and int8."""
    students = len({one.number for one in members})
    forms = f" in {len(members):,} forms" if len(members) > students else ""
    return f"{counted(students, 'student')}{forms}"


def complete_counted(trials: Sequence[TrialRecord]) -> str:
    """Count the trials: ``6 COMPLETE trials``, or ``6 COMPLETE trials (10 forms)`` if some have several forms."""
    numbers = len({one.number for one in trials})
    forms = f" ({len(trials):,} forms)" if len(trials) > numbers else ""
    return f"{counted(numbers, 'COMPLETE trial')}{forms}"


def why_empty(trials: Iterable[TrialRecord], constraints: Sequence[Constraint]) -> str:
    """Return the reason why the front of ``trials`` is empty, as a clause without a full stop."""
    trials = list(trials)
    complete = sum(trial.state is State.COMPLETE for trial in trials)
    if not complete:
        return "no trial is COMPLETE yet"
    bounds = ", ".join(map(str, constraints))
    reason = f"{counted(complete, 'trial')} reached the top rung, and none satisfies {bounds}"
    return f"{reason}{_nearest_to_teacher(trials, constraints)}"


def _nearest_to_teacher(trials: Iterable[TrialRecord], constraints: Sequence[Constraint]) -> str:
    """Return ``: trial 12 came nearest, 8.2 points below the teacher``, of trials within all other constraints."""
    bounds = [one for one in constraints if one.below is not None and not math.isnan(one.bound)]
    others = [one for one in constraints if one.below is None]
    done = [t for t in trials if t.state is State.COMPLETE and all(one.violation(t.latest) <= 0 for one in others)]
    if not bounds or not done:
        return ""
    tight = max(bounds, key=lambda one: one.bound)
    best = max(done, key=lambda t: t.latest.get(tight.metric, 0.0))
    points = 100.0 * (tight.bound + (tight.below or 0.0) - best.latest.get(tight.metric, 0.0))
    return f": trial {best.number} came nearest, {points:.1f} points below the teacher"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
