"""Facts of one trial for figures and pages: rung curve, formatted numbers, hover text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from autodistill.core.records import Objective, TrialRecord
from autodistill.core.wording import distillation_words, student_words


def curve_of(trial: TrialRecord, metric: str) -> list[tuple[float, float]]:
    """Return ``(epochs, value)`` of each rung that reported ``metric``."""
    rungs = [(rung, values) for rung, values in sorted(trial.rungs.items()) if rung > 0 and metric in values]
    return [(float(values.get("epochs", rung)) or float(rung), float(values[metric])) for rung, values in rungs]


def figure_of(value: float, unit: str) -> str:
    """Format a number: fractions with 4 decimals, counts with thousands separators, others with 3 digits."""
    if unit == "fraction":
        return f"{value:.4f}"
    if unit in ("count", "bytes") or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def hover_text(trial: TrialRecord, objectives: Sequence[Objective], gain: float | None = None) -> str:
    """Describe a trial in a few lines of Plotly's HTML: student, loss mix, recipe, values."""
    lines = [f"<b>trial {text(trial.called)}</b>  {text(student_words(trial.student))}"]
    lines += [text(words) for words in (distillation_words(trial.distillation), student_words(trial.train)) if words]
    shown = trial.latest
    lines += [f"{text(o.name)} <b>{figure_of(shown[o.name], o.unit)}</b>" for o in objectives if o.name in shown]
    extra = [name for name in sorted(shown) if name not in {o.name for o in objectives}]
    lines += [f"{text(name)} {figure_of(shown[name], '')}" for name in extra[:4]]
    if gain is not None:
        lines.append(f"<b>{gain:+.4f}</b> against its best undistilled run")
    return "<br>".join(lines)


def text(words: str) -> str:
    """Escape text for Plotly and HTML."""
    return escape(words, quote=False)
