"""What all Plotly figures share: colours that colour-blind people can tell apart, labels, layout."""

from __future__ import annotations

from typing import Any

from autodistill.delivery.trial_facts import text

BLUE, ORANGE, GREEN, GREY, PURPLE, SKY, GOLD = (
    "#1f83c4", "#d55e00", "#009e73", "#8b9099", "#cc79a7", "#56b4e9", "#b8860b",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, GOLD, SKY)
_LABELS = {"accuracy": "validation accuracy", "latency_ms": "latency p50 (ms)", "params": "parameters"}


def label(name: str) -> str:
    """What an axis is called."""
    return _LABELS.get(name, text(name))


def style(title: str) -> dict[str, Any]:
    """Layout of a figure with that title."""
    return {
        "template": "plotly_white",
        "title": {"text": text(title), "x": 0.01, "font": {"size": 15}},
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "margin": {"l": 64, "r": 24, "t": 48, "b": 56},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1.0, "xanchor": "right"},
        "hoverlabel": {"align": "left"},
    }
