"""The axes of pictures of a front, and what is written along them: the same in every picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from autodistill.core.records import Objective

ACROSS = "latency_ms"
"""Objective that is the width of a picture, where the study has it."""

SIZES = ("params", "bytes")
"""Objectives that are the area of a mark, the first that the study has and that is not the width."""

_LABELS = {
    "accuracy": "validation accuracy",
    "latency_ms": "latency p50 (ms)",
    "file_latency_ms": "latency p50 of the exported file (ms)",
    "params": "parameters",
    "macs": "multiply-adds",
    "bytes": "file (bytes)",
    "onnx_bytes": "ONNX file (bytes)",
}


class PictureAxes(NamedTuple):
    """Objectives of a picture.

    Attributes:
        across: the width; the same as ``up`` where the study has one objective.
        up: the height.
        size: the area of a mark; ``None`` where no objective is left for it.
    """

    across: Objective
    up: Objective
    size: Objective | None


def choose_axes(objectives: Sequence[Objective]) -> PictureAxes:
    """Choose the height (first objective to be maximised), then the width, then the area, from the others."""
    up = next((one for one in objectives if one.direction == "maximize"), objectives[0])
    rest = {one.name: one for one in objectives if one is not up}
    across = rest.get(ACROSS) or next(iter(rest.values()), up)
    left = [name for name in (*SIZES, *rest) if name in rest and rest[name] is not across]
    return PictureAxes(across, up, rest[left[0]] if left else None)


def axis_label(name: str, *, log: bool = False) -> str:
    """Name of an objective along an axis; ``log``: say that the scale is logarithmic.

    Args:
        name: of the objective.
        log: add ``log scale`` to the unit.
    """
    words = _LABELS.get(name, name)
    if not log:
        return words
    return f"{words[:-1]}, log scale)" if words.endswith(")") else f"{words} (log scale)"
