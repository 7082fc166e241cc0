"""Common style of all Plotly figures: colours that colour-blind readers can distinguish, labels, layout, ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autodistill.delivery.figures.axes import axis_label
from autodistill.delivery.figures.trial_facts import text

BLUE, ORANGE, GREEN, GREY, PURPLE, SKY, GOLD = (
    "#1f83c4", "#d55e00", "#009e73", "#8b9099", "#cc79a7", "#56b4e9", "#b8860b",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, GOLD, SKY)
_STEPS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (1e4, (1,)),
    (12, (1, 2, 5)),
    (3.5, (1, 2, 3, 5, 7)),
    (1.5, (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)),
    (1, (1, 2, 5)),  # a single value, around which the axis is wide
)
"""Multiples of powers of ten for ticks, by the smallest ratio of the ends of an axis."""


SYMBOLS = {"fp32": "circle", "int8": "square"}
"""Markers of the forms of a student."""


def symbol_of(form: str) -> str:
    """Return the marker of a form."""
    return SYMBOLS.get(form, "square")


def label(name: str) -> str:
    """Return the label of an axis."""
    return text(axis_label(name))


def style(title: str) -> dict[str, Any]:
    """Return the layout of a figure with the given title."""
    return {
        "template": "plotly_white",
        "title": {"text": text(title), "x": 0.01, "y": 0.98, "yanchor": "top", "font": {"size": 15}},
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "margin": {"l": 64, "r": 24, "t": 66, "b": 56},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1.0, "xanchor": "right"},
        "hoverlabel": {"align": "left"},
    }


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Return ticks at round multiples of powers of ten, more of them for a smaller range from ``low`` to ``high``.

    The result is empty for a ratio between 1.02 and 1.5, for which Plotly's own ticks are finer.
    """
    if not 0 < low <= high or not math.isfinite(high) or 1.02 < high / low < 1.5:
        return {}
    steps = next(steps for least, steps in _STEPS if high / low >= least)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    values = [step * 10.0**power for power in powers for step in steps]
    return {"tickvals": values, "ticktext": [short(value) for value in values]}


def short(value: float) -> str:
    """Format a number briefly: ``1250000`` as ``1.25M``, ``0.5`` unchanged."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def time_unit(seconds: Sequence[float]) -> tuple[float, str]:
    """Choose a time unit; return its length in seconds and its label."""
    longest = max(seconds, default=0.0)
    if longest > 3 * 3600:
        return 3600.0, " (hours)"
    return (60.0, " (minutes)") if longest > 180 else (1.0, " (s)")
