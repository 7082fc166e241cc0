"""Parallel coordinates of the COMPLETE trials: a vertical axis per setting and objective, a line per trial.

They are drawn as ordinary lines in SVG. Plotly's own parallel coordinates need WebGL, print blurred, and generate code
at run time, which the report's content security policy forbids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autodistill.core.records import Objective, TrialRecord
from autodistill.core.wording import student_words
from autodistill.delivery.figures.style import style
from autodistill.delivery.figures.trial_facts import figure_of, text

if TYPE_CHECKING:
    import plotly.graph_objects as go

# from worst (yellow) to best (blue); distinguishable by colour-blind readers, visible on white and on black
SHADES = ("#b9a66a", "#93a06f", "#6a9a86", "#3f8fa6", "#1f83c4")
_MOST_LINES, _MOST_AXES = 250, 12
Form = tuple[int, str]
_MOST_WORDS = 8  # largest number of categories labelled on an axis


@dataclass(frozen=True)
class Coordinate:
    """One vertical axis.

    Attributes:
        name: dotted name of the setting, or name of the objective.
        places: height in [0, 1] by form of a trial; trials without the setting are missing.
        ticks: pairs of height and label.
    """

    name: str
    places: Mapping[Form, float]
    ticks: tuple[tuple[float, str], ...]


def coordinates(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[Coordinate]:
    """Return axes for the varying settings, preferring those that most trials have, then for the objectives."""
    columns: dict[str, dict[Form, Any]] = {}
    for trial in trials:
        for section in ("student", "distillation", "train"):
            for key, value in getattr(trial, section).items():
                columns.setdefault(f"{section}.{key}", {})[trial.form] = value
        columns.setdefault("variant", {})[trial.form] = trial.variant
    varying = {n: c for n, c in columns.items() if len({str(v) for v in c.values()}) > 1}
    names = sorted(varying, key=lambda name: -len(varying[name]))[: _MOST_AXES - len(objectives)]
    names.sort(key=list(columns).index)
    out = [_coordinate(name, varying[name]) for name in names]
    for objective in objectives:
        values = {t.form: t.latest[objective.name] for t in trials}
        out.append(_numeric(objective.name, values, log=objective.log, unit=objective.unit))
    return out


def parallel_figure(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective], *, on_front: Sequence[Form] = ()
) -> go.Figure:
    """Draw one line per COMPLETE trial and form, bluer for a better first objective, thick for members of the front.

    Args:
        trials: COMPLETE trials; of more than 250, only the best in the first objective and all members are drawn.
        objectives: objectives in the study's order.
        on_front: number and form of the members.
    """
    import plotly.graph_objects as go

    first = objectives[0]
    ranked = sorted(trials, key=lambda t: -first.loss(t.values[first.name]))  # the best last: drawn on top
    members = set(on_front)
    kept = [t for i, t in enumerate(ranked) if t.form in members or i >= len(ranked) - _MOST_LINES]
    axes = coordinates(kept, objectives)
    figure = go.Figure()
    for shade, color in enumerate(SHADES):
        for front in (False, True):
            chosen = [
                t
                for i, t in enumerate(kept)
                if i * len(SHADES) // max(1, len(kept)) == shade and (t.form in members) == front
            ]
            if chosen:
                figure.add_trace(_lines(chosen, axes, objectives, color, front=front))
    left_out = "" if len(kept) == len(trials) else f" (the best {len(kept)} of {len(trials)} COMPLETE trials)"
    figure.update_layout(style(f"Settings and outcomes{left_out}"), showlegend=False, height=460)
    figure.update_layout(margin={"l": 40, "r": 40, "t": 56, "b": 72})
    heads = [text(axis.name).replace(".", "<br>", 1) for axis in axes]
    figure.update_xaxes(tickvals=list(range(len(axes))), ticktext=heads, range=[-0.4, len(axes) - 0.4], tickangle=0)
    figure.update_yaxes(visible=False, range=[-0.06, 1.06])
    for index, axis in enumerate(axes):
        for height, words in axis.ticks:
            figure.add_annotation(
                x=index,
                y=height,
                text=text(words),
                showarrow=False,
                xanchor="left",
                xshift=4,
                font={"size": 11},
                bgcolor="rgba(255,255,255,0.7)",
            )
    return figure


def _lines(
    trials: Sequence[TrialRecord],
    axes: Sequence[Coordinate],
    objectives: Sequence[Objective],
    color: str,
    *,
    front: bool,
) -> go.Scatter:
    """Return the lines of several trials as one trace; settings that a trial does not have are skipped."""
    import plotly.graph_objects as go

    x: list[int | None] = []
    y: list[float | None] = []
    words: list[str | None] = []
    for trial in trials:
        having = [(i, axis.places[trial.form]) for i, axis in enumerate(axes) if trial.form in axis.places]
        x += [*(i for i, _ in having), None]
        y += [*(height for _, height in having), None]
        words += [*([_summary(trial, objectives)] * len(having)), None]
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+markers",
        line={"color": color, "width": 2.6 if front else 1},
        marker={"size": 6 if front else 4},
        opacity=1.0 if front else 0.45,
        hoverinfo="text",
        hovertext=words,
    )


def _summary(trial: TrialRecord, objectives: Sequence[Objective]) -> str:
    """Return a short hover text; it is repeated at every axis, so a long one would make the file large."""
    first = objectives[0]
    reached = f"{text(first.name)} {figure_of(trial.values[first.name], first.unit)}"
    return f"<b>trial {text(trial.called)}</b> {text(student_words(trial.student))}<br>{reached}"


def _coordinate(name: str, values: Mapping[Form, Any]) -> Coordinate:
    numbers = {n: v for n, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    if len(numbers) == len(values):
        positive = min(numbers.values()) > 0
        return _numeric(name, numbers, log=positive and max(numbers.values()) / min(numbers.values()) >= 10)
    kinds = sorted({str(v) for v in values.values()})
    places = {kind: (i + 0.5) / len(kinds) for i, kind in enumerate(kinds)}
    step = max(1, math.ceil(len(kinds) / _MOST_WORDS))
    ticks = tuple((places[kind], _short(kind)) for kind in kinds[::step])
    return Coordinate(name, {n: places[str(v)] for n, v in values.items()}, ticks)


def _numeric(name: str, values: Mapping[Form, float], *, log: bool, unit: str = "") -> Coordinate:
    """Return a numeric axis from the lowest to the highest value."""

    def height(value: float) -> float:
        return math.log(max(value, 1e-12)) if log else value

    low, high = min(values.values()), max(values.values())
    span = height(high) - height(low) or 1.0
    places = {n: (height(v) - height(low)) / span for n, v in values.items()}
    middle = math.sqrt(low * high) if log else (low + high) / 2
    ends = [(0.0, low), ((height(middle) - height(low)) / span, middle), (1.0, high)]
    return Coordinate(name, places, tuple((at, figure_of(value, unit)) for at, value in ends))


def _short(words: str) -> str:
    return words if len(words) <= 18 else f"{words[:17]}…"
