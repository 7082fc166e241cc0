"""Comparison of several searches as an image: attainment of each, and growth of its hypervolume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.delivery.figures.axes import axis_label, choose_axes
from autodistill.delivery.figures.front_png import forms_of, log_axis, marker_of, widen

if TYPE_CHECKING:
    from autodistill.search.analysis.compare import Comparison, ComparisonRow, Group

_COLORS = ("#1f6f8b", "#d1495b", "#6a994e", "#8d6a9f", "#c77d1e", "#4a4e69", "#2a9d8f", "#7f5539")
_DASHES = ("-", "--", "-.", ":")


def comparison_png(comparison: Comparison, path: str | Path) -> None:
    """Plot ``comparison`` to the file ``path``; its suffix selects the format (PNG, SVG, PDF).

    Left: the median attainment line of each group, with a band from its worst to its best run. Right: hypervolume share
    over seconds, as the mean of the runs with a band from the lowest to the highest.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for index, (group, row) in enumerate(zip(comparison.groups, comparison.rows, strict=True)):
        style = {"color": _COLORS[index % len(_COLORS)], "linestyle": _DASHES[(index // len(_COLORS)) % len(_DASHES)]}
        _draw_attainment(left, comparison, group, style)
        _draw_growth(right, group, row, style)
    _finish(left, right, comparison)
    figure.savefig(path)


def label_of(group: Group) -> str:
    """Return a group's label in a legend: name, number of runs if several, and "(empty)" if all fronts are empty."""
    runs = f" ({len(group.fronts)} runs)" if len(group.fronts) > 1 else ""
    return f"{group.name}{runs}" + ("" if any(front.trials for front in group.fronts) else " (empty)")


def _draw_attainment(axes: Any, comparison: Comparison, group: Group, style: dict[str, str]) -> None:
    from autodistill.search.analysis.compare import attainment

    across, up, _ = choose_axes(comparison.objectives)
    lines = attainment(group.fronts, across, up)
    mark = "o" if len(lines["across"]) == 1 else None  # a single point makes no line
    style = {"label": label_of(group), **style}
    axes.step(lines["across"], lines["median"], where="post", linewidth=1.8, marker=mark, **style)
    if len(group.fronts) > 1:
        band = (lines["worst"], lines["best"])
        axes.fill_between(lines["across"], *band, step="post", color=style["color"], alpha=0.13, linewidth=0)
    members = [t for front in group.fronts for t in front.trials]
    for form in forms_of(members):
        points = [(t.values[across.name], t.values[up.name]) for t in members if t.variant == form]
        marks: dict[str, Any] = {"s": 12, "marker": marker_of(form), "alpha": 0.6, "linewidths": 0}
        axes.scatter(*zip(*points, strict=True), color=style["color"], **marks)


def _forms(comparison: Comparison) -> list[Any]:
    """Return legend entries for every form except fp32."""
    from matplotlib.lines import Line2D

    members = [t for group in comparison.groups for front in group.fronts for t in front.trials]
    style: dict[str, Any] = {"linestyle": "none", "color": "#6b6f76", "markersize": 4}
    return [Line2D([], [], marker=marker_of(f), label=f"{f} form", **style) for f in forms_of(members) if f != "fp32"]


def _draw_growth(axes: Any, group: Group, row: ComparisonRow, style: dict[str, str]) -> None:
    from autodistill.search.analysis.compare import growth

    lines = growth(group, row)
    if not lines["seconds"]:
        return
    axes.step(lines["seconds"], lines["mean"], where="post", linewidth=1.8, label=row.name, **style)
    if len(group.fronts) > 1:
        band = (lines["lowest"], lines["highest"])
        axes.fill_between(lines["seconds"], *band, step="post", color=style["color"], alpha=0.13, linewidth=0)


def _finish(left: Any, right: Any, comparison: Comparison) -> None:
    across, up, _ = choose_axes(comparison.objectives)
    widths = [t.values[across.name] for g in comparison.groups for f in g.fronts for t in f.trials]
    log_axis(left, across, widths)
    widen(left, widths)
    left.set_xlabel(axis_label(across.name, log=across.log))
    left.set_ylabel(axis_label(up.name))
    several = any(len(group.fronts) > 1 for group in comparison.groups)
    left.set_title(f"attainment of the fronts{' (median, worst to best run)' * several}", loc="left", fontsize=10)
    left.legend(handles=[*left.get_legend_handles_labels()[0], *_forms(comparison)], fontsize=8, frameon=False)
    right.set_xlabel("seconds searched")
    right.set_ylabel("hypervolume, share of the common box")
    right.set_title("hypervolume over time", loc="left", fontsize=10)
    if not right.lines:
        right.text(
            0.5, 0.5, "these studies have no record of times", ha="center", va="center", transform=right.transAxes
        )
    for axes in (left, right):
        axes.grid(True, which="major", color="#e6e8eb", linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
