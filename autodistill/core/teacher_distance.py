"""How far a student is from its teacher, in points: hundredths of accuracy."""

from __future__ import annotations

from collections.abc import Mapping

METRIC = "accuracy"


def to_teacher(values: Mapping[str, float], teacher: Mapping[str, float]) -> float | None:
    """Points of accuracy above the teacher, negative below; ``None`` where one of them is unknown."""
    if METRIC not in values or METRIC not in teacher:
        return None
    return round(100.0 * (values[METRIC] - teacher[METRIC]), 6)


def points_words(points: float | None) -> str:
    """``-3.2 pts``; ``-`` where it is unknown."""
    return "-" if points is None else f"{points:+.1f} pts"
