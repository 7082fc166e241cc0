"""The front as a Plotly figure: accuracy against latency, size as area, dominated trials pale, the teacher a star."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autodistill.core.records import Objective, TrialRecord
from autodistill.core.wording import students_counted
from autodistill.delivery.figures.axes import choose_axes
from autodistill.delivery.figures.style import BLUE, GOLD, GREEN, GREY, ORANGE, label, log_ticks, style, symbol_of
from autodistill.delivery.figures.trial_facts import figure_of, hover_text, text
from autodistill.search.results.gain import UndistilledRuns, gain_over_undistilled

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from autodistill.search.results.front import Front

TRIAL = "trial"
ACCURACY = "accuracy"
_MOST_DOTS = 2000  # dominated trials that are drawn; a page with more takes long to open
_LARGEST, _SMALLEST, _RING = 34.0, 9.0, 8.0  # diameters in pixels; the ring's is added to that of its mark


@dataclass(frozen=True)
class PlotAxis:
    """A value of every COMPLETE trial that can be used as an axis.

    Attributes:
        name: name of the value.
        label: label of the axis.
        log: whether the axis is logarithmic.
        better: ``lower``, ``higher``, or empty if neither is better.
        unit: unit of the value.
    """

    name: str
    label: str
    log: bool = False
    better: str = ""
    unit: str = ""


def axes_of(front: Front) -> list[PlotAxis]:
    """Return the possible axes: the objectives, other metrics of all trials, epochs, seconds and trial number."""
    out = [axis_of(o) for o in front.objectives]
    have = [t.latest for t in (*front.trials, *front.others)]
    shared = sorted(set.intersection(*(set(m) for m in have))) if have else []
    named = {o.name for o in front.objectives}
    out += [_axis_of_name(name) for name in shared if name not in named]
    return [
        *out,
        PlotAxis("epochs", "epochs trained"),
        PlotAxis("seconds", "training time (s)"),
        PlotAxis(TRIAL, "trial number"),
    ]


def front_figure(
    front: Front,
    trials: Sequence[TrialRecord] = (),
    *,
    verified: Mapping[int, tuple[float, float]] | None = None,
    empty: str = "",
) -> go.Figure:
    """Plot accuracy against latency, with size as area, dominated trials pale, and the teacher as a star.

    ``layout.meta`` names the axes in the columns of each trace's ``customdata``, so that a page can offer them for
    selection; the first column is the trial number.

    Args:
        front: the front, with its dominated trials.
        trials: all trials, for the gain of each member over the same student without distillation.
        verified: mean and standard deviation of test accuracy by trial number; drawn if accuracy is the y axis.
        empty: reason to show if the front is empty.
    """
    import plotly.graph_objects as go

    axes = axes_of(front)
    chosen = choose_axes(front.objectives)
    across, up, size = chosen.across.name, chosen.up.name, chosen.size.name if chosen.size else None
    names = [a.name for a in axes]
    figure = go.Figure()
    figure.update_layout(
        style(f"{front.study}: {students_counted(front.trials)} on the front"),
        meta={
            "axes": [a.__dict__ for a in axes],
            "x": across if across != up else TRIAL,
            "y": up,
            "size": size or "",
            "diameters": [_SMALLEST, _LARGEST],
            "ring": _RING,
        },
    )
    x, y = names.index(across if across != up else TRIAL), names.index(up)
    if not front.trials:
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        words = f"the front is empty: {empty or 'no trial is COMPLETE yet'}"
        figure.add_annotation(text=text(words), xref="paper", yref="paper", x=0.5, y=0.5, showarrow=False)
        return figure
    figure.add_trace(_dots(front, front.others, axes, "dominated", trials, at=(x, y, size)))
    figure.add_trace(_stairs(front, axes[x], axes[y]))
    figure.add_trace(_dots(front, front.trials, axes, "front", trials, at=(x, y, size)))
    figure.add_traces(_knee(front, axes, at=(x, y, size)))
    figure.add_traces(_forms(front, axes))
    means = _shown_means(front, verified or {}) if up == ACCURACY else {}
    if means:
        figure.add_trace(_verified(front, axes, means, x))
    _add_teacher(figure, front, axes, x, y)
    _scale_axes(figure, front, axes[x], axes[y], means)
    return figure


def diameter(value: float, top: float) -> float:
    """Return the diameter in pixels of a mark with an area proportional to ``value / top``, above a smallest one."""
    return max(_SMALLEST, _LARGEST * math.sqrt(max(value, 0.0) / top)) if top > 0 else 12.0


def axis_layout(axis: PlotAxis, seen: Sequence[float]) -> dict[str, Any]:
    """Return title, scale and ticks of ``axis`` for the values ``seen`` on it."""
    arrows = {"lower": " ← better", "higher": " better →"}
    log = axis.log and bool(seen) and min(seen) > 0  # a logarithmic axis has positive values only
    ticks = log_ticks(min(seen), max(seen)) if log else {}
    return {"title": axis.label + arrows.get(axis.better, ""), "type": "log" if log else "linear", **ticks}


def axis_of(objective: Objective) -> PlotAxis:
    """Convert an objective to an axis."""
    better = "lower" if objective.direction == "minimize" else "higher"
    return PlotAxis(objective.name, label(objective.name), objective.log, better, objective.unit)


def _axis_of_name(name: str) -> PlotAxis:
    from autodistill.search.objectives.objectives import objectives

    return axis_of(objectives.get(name)) if name in objectives.names() else PlotAxis(name, label(name))


def _row(trial: TrialRecord, axes: Sequence[PlotAxis]) -> list[float | None]:
    values = {**trial.latest, "epochs": trial.epochs, "seconds": trial.seconds, TRIAL: float(trial.number)}
    return [float(trial.number), *(values.get(axis.name) for axis in axes)]


def _dominated_words(count: int) -> str:
    return "dominated" if count <= _MOST_DOTS else f"dominated ({_MOST_DOTS:,} of {count:,}, evenly chosen)"


def _dots(
    front: Front,
    members: Sequence[TrialRecord],
    axes: Sequence[PlotAxis],
    role: str,
    trials: Sequence[TrialRecord],
    *,
    at: tuple[int, int, str | None],
) -> go.Scatter:
    """Return one trace of trials; ``at`` has the column of x, the column of y and the metric of the area."""
    import plotly.graph_objects as go

    x, y, size = at
    sizes = [t.latest[size] for t in (*front.trials, *front.others)] if size else []
    top = max(sizes, default=0.0)
    if len(members) > _MOST_DOTS and role != "front":
        members = [members[int(i * len(members) / _MOST_DOTS)] for i in range(_MOST_DOTS)]
    members = sorted(members, key=lambda t: -t.latest[size]) if size else list(members)  # small marks on top
    rows = [_row(t, axes) for t in members]
    diameters = [diameter(t.latest[size], top) if size else 12.0 for t in members]
    first, runs = front.objectives[0], UndistilledRuns(trials)
    return go.Scatter(
        x=[row[x + 1] for row in rows],
        y=[row[y + 1] for row in rows],
        mode="markers",
        name="on the front" if role == "front" else _dominated_words(len(front.others)),
        hoverinfo="text",
        hovertext=[hover_text(t, front.objectives, gain_over_undistilled(t, runs, first)) for t in members],
        customdata=rows,
        marker={
            "size": diameters,
            "symbol": [symbol_of(t.variant) for t in members],
            "color": BLUE if role == "front" else GREY,
            "opacity": 0.9 if role == "front" else 0.4,
            "line": {"width": 1, "color": "white"},
        },
        meta={"role": role},
    )


def _forms(front: Front, axes: Sequence[PlotAxis]) -> list[go.Scatter]:
    """Return empty traces that show the marker of every form except fp32 in the legend."""
    import plotly.graph_objects as go

    forms = sorted({t.variant for t in (*front.trials, *front.others)} - {"fp32"})
    no_data: list[list[None]] = [[None] * (len(axes) + 1)]
    return [
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=text(f"{form} form"),
            hoverinfo="skip",
            customdata=no_data,
            marker={"symbol": symbol_of(form), "size": [12.0], "color": GREY, "line": {"width": 1, "color": "white"}},
            meta={"role": "form"},
        )
        for form in forms
    ]


def _knee(front: Front, axes: Sequence[PlotAxis], *, at: tuple[int, int, str | None]) -> list[go.Scatter]:
    """Return a ring around the knee, without hover text, so that its mark stays selectable."""
    import plotly.graph_objects as go

    knee = front.knee()
    if knee is None:
        return []
    x, y, size = at
    row = _row(knee, axes)
    top = max(t.latest[size] for t in (*front.trials, *front.others)) if size else 0.0
    wide = diameter(knee.latest[size], top) if size else 12.0
    return [
        go.Scatter(
            x=[row[x + 1]],
            y=[row[y + 1]],
            mode="markers",
            name=text(f"knee (trial {knee.called})"),
            hoverinfo="skip",
            customdata=[row],
            marker={
                "symbol": f"{symbol_of(knee.variant)}-open",
                "size": [wide + _RING],
                "color": GOLD,
                "line": {"width": 2},
            },
            meta={"role": "knee"},
        )
    ]


def _stairs(front: Front, across: PlotAxis, up: PlotAxis) -> go.Scatter:
    """Return the line of the best ``up`` reached with at most each value of ``across``."""
    import plotly.graph_objects as go

    signs = (-1.0 if across.better == "higher" else 1.0, -1.0 if up.better == "higher" else 1.0)
    points = [({**t.latest, TRIAL: float(t.number)}) for t in front.trials]
    pairs = sorted((signs[0] * p[across.name], signs[1] * p[up.name]) for p in points)
    best: list[tuple[float, float]] = []
    for pair in pairs:
        if not best or pair[1] < best[-1][1]:
            best.append(pair)
    return go.Scatter(
        x=[signs[0] * a for a, _ in best],
        y=[signs[1] * b for _, b in best],
        mode="lines",
        line={"shape": "hv", "color": BLUE, "width": 1.5},
        opacity=0.55,
        hoverinfo="skip",
        showlegend=False,
        meta={"role": "stairs"},
    )


def _shown_means(front: Front, verified: Mapping[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
    """Return the verified means of the drawn fp32 trials."""
    numbers = [t.number for t in (*front.trials, *front.others) if t.variant == "fp32"]
    return {number: verified[number] for number in numbers if number in verified}


def _verified(
    front: Front, axes: Sequence[PlotAxis], verified: Mapping[int, tuple[float, float]], x: int
) -> go.Scatter:
    import plotly.graph_objects as go

    known = {t.number: t for t in (*front.trials, *front.others) if t.variant == "fp32"}
    chosen = [known[number] for number in verified]
    rows = [_row(t, axes) for t in chosen]
    return go.Scatter(
        x=[row[x + 1] for row in rows],
        y=[verified[t.number][0] for t in chosen],
        error_y={"type": "data", "array": [verified[t.number][1] for t in chosen], "color": GREEN},
        mode="markers",
        name="verified on test (mean ± std)",
        marker={"symbol": "diamond", "size": 9, "color": GREEN, "line": {"width": 1, "color": "white"}},
        hoverinfo="text",
        hovertext=[
            f"<b>trial {t.number}</b> verified: {verified[t.number][0]:.4f} ± {verified[t.number][1]:.4f}"
            for t in chosen
        ],
        customdata=rows,
        meta={"role": "verified"},
    )


def _add_teacher(figure: go.Figure, front: Front, axes: Sequence[PlotAxis], x: int, y: int) -> None:
    """Add the teacher: a star if both values are known, and a dashed line at its y value."""
    import plotly.graph_objects as go

    values = [front.teacher.get(axis.name) for axis in axes]
    if not any(value is not None for value in values):
        return
    known = [f"{text(n)} <b>{figure_of(v, '')}</b>" for n, v in front.teacher.items()]
    figure.add_trace(
        go.Scatter(
            x=[values[x]],
            y=[values[y]],
            mode="markers",
            name="teacher",
            marker={"symbol": "star", "size": 18, "color": ORANGE, "line": {"width": 1, "color": "white"}},
            hoverinfo="text",
            hovertext=["<br>".join(["<b>teacher</b>", *known])],
            customdata=[[None, *values]],
            meta={"role": "teacher"},
        )
    )
    if values[y] is not None:
        figure.add_hline(y=values[y], line={"color": ORANGE, "width": 1, "dash": "dash"}, opacity=0.7)


def _scale_axes(
    figure: go.Figure, front: Front, across: PlotAxis, up: PlotAxis, verified: Mapping[int, tuple[float, float]]
) -> None:
    """Set titles, scales and the y range; the worst dominated trials are left out if they would flatten the front.

    Verified means with their error bars are always inside the range.
    """
    shown = (*front.trials, *front.others)
    for axis, update in ((across, figure.update_xaxes), (up, figure.update_yaxes)):
        seen = [value for t in shown if (value := t.latest.get(axis.name)) is not None]
        seen += [front.teacher[axis.name]] if front.teacher.get(axis.name, 0.0) > 0 else []
        update(axis_layout(axis, seen))
    if up.better != "higher":
        return
    values = [t.latest[up.name] for t in front.trials] + [front.teacher.get(up.name, -math.inf)]
    best, worst = max(values), min(v for v in values if math.isfinite(v))
    floor = worst - 2.0 * max(best - worst, 1e-3)
    bars = [edge for mean, std in verified.values() for edge in (mean - std, mean + std)]
    best = max([best, *bars])
    spare = 0.06 * (best - floor)
    floor = min([floor, *(edge - spare for edge in bars)])
    out = sum(t.latest[up.name] < floor for t in front.others)
    if out:
        figure.update_yaxes(range=[floor, best + spare])
        figure.add_annotation(
            text=f"{out} dominated below this range; double-click to show all",
            xref="paper", yref="paper", x=0.0, y=0.0, xanchor="left", yanchor="bottom", showarrow=False, opacity=0.7,
        )  # fmt: skip
