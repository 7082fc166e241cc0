"""Choice of the axes of all figures of a front, and the labels of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from autodistill.core.records import LATENCY, Objective

ACROSS = LATENCY
"""Objective of the x axis, if the study has it."""

SIZES = ("params", "bytes")
"""Objectives for the area of a mark, by preference."""

_LABELS = {
    "accuracy": "validation accuracy",
    "average_precision": "mean average precision (mAP)",
    LATENCY: "latency p50 (ms)",
    "file_latency_ms": "latency p50 of the exported file (ms)",
    "params": "parameters",
    "macs": "multiply-adds",
    "bytes": "file (bytes)",
    "onnx_bytes": "ONNX file (bytes)",
}


class PictureAxes(NamedTuple):
    """Objectives of a figure.

    Attributes:
        across: objective of the x axis; the same as ``up`` if the study has one objective.
        up: objective of the y axis.
        size: objective of the area of a mark; ``None`` if no objective is left.
    """

    across: Objective
    up: Objective
    size: Objective | None


def choose_axes(objectives: Sequence[Objective]) -> PictureAxes:
    """Choose the y axis (the first objective to maximise), then x axis and area from the other objectives."""
    up = next((one for one in objectives if one.direction == "maximize"), objectives[0])
    rest = {one.name: one for one in objectives if one is not up}
    across = rest.get(ACROSS) or next(iter(rest.values()), up)
    left = [name for name in (*SIZES, *rest) if name in rest and rest[name] is not across]
    return PictureAxes(across, up, rest[left[0]] if left else None)


def axis_label(name: str, *, log: bool = False) -> str:
    """Return the label of an axis.

    Args:
        name: name of the objective.
        log: whether to add that the scale is logarithmic.
    """
    words = _LABELS.get(name, name)
    if not log:
        return words
    return f"{words[:-1]}, log scale)" if words.endswith(")") else f"{words} (log scale)"
