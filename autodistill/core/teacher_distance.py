"""Difference in accuracy between a student and its teacher, in percentage points."""

from __future__ import annotations

from collections.abc import Mapping

METRIC = "accuracy"


def to_teacher(values: Mapping[str, float], teacher: Mapping[str, float]) -> float | None:
    """Return the percentage points of accuracy above the teacher (negative: below); ``None`` if one is unknown."""
    if METRIC not in values or METRIC not in teacher:
        return None
    return round(100.0 * (values[METRIC] - teacher[METRIC]), 6)


def points_words(points: float | None) -> str:
    """Format points as ``-3.2 pts``; ``-`` if unknown."""
    return "-" if points is None else f"{points:+.1f} pts"
