"""Comparison of several searches as a Plotly figure: attainment of each, and growth of its hypervolume."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from autodistill.delivery.figures.axes import choose_axes
from autodistill.delivery.figures.comparison_png import label_of
from autodistill.delivery.figures.front_figure import axis_layout, axis_of
from autodistill.delivery.figures.front_png import forms_of
from autodistill.delivery.figures.style import GREY, PALETTE, style, symbol_of, time_unit
from autodistill.delivery.figures.trial_facts import hover_text, text

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from autodistill.search.analysis.compare import Comparison, Group

_DASHES = ("solid", "dash", "dot", "dashdot")
_LEFT, _RIGHT = {"row": 1, "col": 1}, {"row": 1, "col": 2}


def comparison_figure(comparison: Comparison) -> go.Figure:
    """Draw the plot of ``comparison_png`` interactively, with every student of every front.

    Left: the median attainment line of each group, with a band from its worst to its best run, and its students. Right:
    hypervolume share over time, as the mean of the runs with a band from the lowest to the highest. A click on a
    group's name hides it in both plots.
    """
    from plotly.subplots import make_subplots

    from autodistill.search.analysis.compare import growth

    lines = [growth(group, row) for group, row in zip(comparison.groups, comparison.rows, strict=True)]
    unit, word = time_unit([seconds for line in lines for seconds in line["seconds"]])
    figure = make_subplots(cols=2, horizontal_spacing=0.1)
    for index, (group, line) in enumerate(zip(comparison.groups, lines, strict=True)):
        color, dash = PALETTE[index % len(PALETTE)], _DASHES[(index // len(PALETTE)) % len(_DASHES)]
        drawn = {"legendgroup": str(index), "line": {"color": color, "width": 2, "dash": dash, "shape": "hv"}}
        figure.add_traces(list(_attained(comparison, group, drawn)), rows=1, cols=1)
        figure.add_traces(list(_grown(group, line, unit, drawn)), rows=1, cols=2)
    figure.add_traces(list(_forms(comparison)), rows=1, cols=1)
    figure.update_layout(style(_title(comparison)))
    across, up, _ = choose_axes(comparison.objectives)
    for objective, update in ((across, figure.update_xaxes), (up, figure.update_yaxes)):
        seen = [t.values[objective.name] for g in comparison.groups for f in g.fronts for t in f.trials]
        update(axis_layout(axis_of(objective), seen), **_LEFT)
    figure.update_xaxes(title=f"time of the search{word}", rangemode="tozero", **_RIGHT)
    figure.update_yaxes(title="hypervolume, share of the common box", rangemode="tozero", **_RIGHT)
    if not any(line["seconds"] for line in lines):
        middle = {"xref": "x2 domain", "yref": "y2 domain", "x": 0.5, "y": 0.5, "showarrow": False}
        figure.add_annotation(text="these studies have no record of times", **middle)
    return figure


def _forms(comparison: Comparison) -> Iterator[go.Scatter]:
    """Yield empty traces that show the marker of every form except fp32 in the legend."""
    import plotly.graph_objects as go

    for form in forms_of([t for group in comparison.groups for front in group.fronts for t in front.trials]):
        if form != "fp32":
            marker = {"symbol": symbol_of(form), "size": 7, "color": GREY}
            role = {"role": "form"}
            yield go.Scatter(x=[None], y=[None], mode="markers", name=text(f"{form} form"), marker=marker, meta=role)


def _title(comparison: Comparison) -> str:
    several = any(len(group.fronts) > 1 for group in comparison.groups)
    bands = " (median and mean; bands: worst to best run)" if several else ""
    return f"Attainment of the fronts, and hypervolume over time{bands}"


def _attained(comparison: Comparison, group: Group, drawn: dict[str, Any]) -> Iterator[go.Scatter]:
    """Yield band, line and students of one group; an empty group is shown in the legend only."""
    import plotly.graph_objects as go

    from autodistill.search.analysis.compare import attainment

    across, up, _ = choose_axes(comparison.objectives)
    lines = attainment(group.fronts, across, up)
    if len(group.fronts) > 1:
        yield from _band(lines["across"], lines["worst"], lines["best"], drawn)
    names = {"name": text(label_of(group)), "meta": {"role": "median", "group": group.name}}
    if not lines["across"]:  # a trace without points is not in the legend
        lines = {"across": [math.nan], "median": [math.nan]}
    yield go.Scatter(x=lines["across"], y=lines["median"], mode="lines", hoverinfo="skip", **names, **drawn)
    members = [(front, trial) for front in group.fronts for trial in front.trials]
    yield go.Scatter(
        x=[trial.values[across.name] for _, trial in members],
        y=[trial.values[up.name] for _, trial in members],
        mode="markers",
        marker={
            "color": drawn["line"]["color"],
            "symbol": [symbol_of(trial.variant) for _, trial in members],
            "size": 7,
            "opacity": 0.75,
            "line": {"width": 1, "color": "white"},
        },
        hoverinfo="text",
        hovertext=[f"{text(front.study)} {hover_text(trial, comparison.objectives)}" for front, trial in members],
        showlegend=False,
        legendgroup=drawn["legendgroup"],
        meta={"role": "students", "group": group.name},
    )


def _grown(group: Group, line: dict[str, list[float]], unit: float, drawn: dict[str, Any]) -> Iterator[go.Scatter]:
    """Yield band and line of one group; nothing if it has no record of times."""
    import plotly.graph_objects as go

    if not line["seconds"]:
        return
    times = [seconds / unit for seconds in line["seconds"]]
    if len(group.fronts) > 1:
        yield from _band(times, line["lowest"], line["highest"], drawn)
    yield go.Scatter(
        x=times,
        y=line["mean"],
        mode="lines",
        hovertemplate=f"{text(group.name)} at %{{x:.4g}}: %{{y:.4f}}<extra></extra>",
        showlegend=False,
        meta={"role": "growth", "group": group.name},
        **drawn,
    )


def _band(x: Sequence[float], worst: Sequence[float], best: Sequence[float], drawn: dict[str, Any]) -> list[go.Scatter]:
    """Return two invisible lines with a filled area between them, where every run has a value."""
    import plotly.graph_objects as go

    known = [row for row in zip(x, worst, best, strict=True) if not math.isnan(row[1])]
    bare = {"width": 0, "shape": "hv"}
    rest = {"mode": "lines", "line": bare, "hoverinfo": "skip", "showlegend": False, "meta": {"role": "band"}}
    rest["legendgroup"] = drawn["legendgroup"]
    xs = [row[0] for row in known]
    return [
        go.Scatter(x=xs, y=[row[1] for row in known], **rest),
        go.Scatter(x=xs, y=[row[2] for row in known], fill="tonexty", fillcolor=_faint(drawn["line"]["color"]), **rest),
    ]


def _faint(color: str) -> str:
    """Return a hexadecimal colour such as ``#1f83c4`` with an opacity of 0.15."""
    return f"rgba({', '.join(str(int(color[at : at + 2], 16)) for at in (1, 3, 5))}, 0.15)"
