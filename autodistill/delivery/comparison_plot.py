"""A picture of several searches: what each attains, and how fast its hypervolume grew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autodistill.delivery.plots import axis_words, log_axis, pick_axes, widen

if TYPE_CHECKING:
    from autodistill.search.compare import Comparison, Group, Row

_COLORS = ("#1f6f8b", "#d1495b", "#6a994e", "#8d6a9f", "#c77d1e", "#4a4e69", "#2a9d8f", "#7f5539")
_DASHES = ("-", "--", "-.", ":")


def comparison_png(comparison: Comparison, path: str | Path) -> None:
    """Draw ``comparison`` into ``path``; the ending chooses the format (PNG, SVG, PDF).

    Left: the median attainment line of each group, with the band from its worst to its best run. Right: hypervolume
    share against seconds, mean over the runs with the band from the lowest to the highest.
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


def _draw_attainment(axes: Any, comparison: Comparison, group: Group, style: dict[str, str]) -> None:
    from autodistill.search.compare import attainment

    across, up, _ = pick_axes(comparison.objectives)
    lines = attainment(group.fronts, across, up)
    runs = f" ({len(group.fronts)} runs)" if len(group.fronts) > 1 else ""
    empty = "" if any(front.trials for front in group.fronts) else " (empty)"
    mark = "o" if len(lines["across"]) == 1 else None  # a single width has no line
    label = f"{group.name}{runs}{empty}"
    axes.step(lines["across"], lines["median"], where="post", linewidth=1.8, marker=mark, label=label, **style)
    if len(group.fronts) > 1:
        band = (lines["worst"], lines["best"])
        axes.fill_between(lines["across"], *band, step="post", color=style["color"], alpha=0.13, linewidth=0)
    points = [(t.values[across.name], t.values[up.name]) for f in group.fronts for t in f.trials]
    if points:
        axes.scatter(*zip(*points, strict=True), s=12, color=style["color"], alpha=0.6, linewidths=0)


def _draw_growth(axes: Any, group: Group, row: Row, style: dict[str, str]) -> None:
    # a run without a step counts, at 0, where its front is empty; with a front it kept no clock
    runs = zip(group.fronts, row.curves, row.seconds, strict=True)
    known = [(curve, spent) for front, curve, spent in runs if curve or (spent > 0 and not front.trials)]
    if not known:
        return
    curves = [curve for curve, _ in known]
    # from nothing at the start to the end of the longest run: a search that found its last student early went on
    ends = [0.0, *(spent for _, spent in known)]
    times = np.unique(np.concatenate([ends, *([step.seconds for step in curve] for curve in curves)]))
    shares = np.array([_shares(curve, times) for curve in curves])
    axes.step(times, shares.mean(axis=0), where="post", linewidth=1.8, label=row.name, **style)
    if len(curves) > 1:
        band = (shares.min(axis=0), shares.max(axis=0))
        axes.fill_between(times, *band, step="post", color=style["color"], alpha=0.13, linewidth=0)


def _shares(curve: Any, times: np.ndarray) -> np.ndarray:
    """The share that one run had reached at each of ``times``."""
    known = np.array([step.seconds for step in curve])
    values = np.array([0.0, *(step.hypervolume_share for step in curve)])
    picked: np.ndarray = values[np.searchsorted(known, times, side="right")]
    return picked


def _finish(left: Any, right: Any, comparison: Comparison) -> None:
    across, up, _ = pick_axes(comparison.objectives)
    widths = [t.values[across.name] for g in comparison.groups for f in g.fronts for t in f.trials]
    log_axis(left, across, widths)
    widen(left, widths)
    left.set_xlabel(axis_words(across))
    left.set_ylabel(axis_words(up))
    several = any(len(group.fronts) > 1 for group in comparison.groups)
    left.set_title(f"what the fronts attain{' (median, worst to best run)' * several}", loc="left", fontsize=10)
    left.legend(fontsize=8, frameon=False, loc="best")
    right.set_xlabel("seconds searched")
    right.set_ylabel("hypervolume, share of the common box")
    right.set_title("hypervolume over time", loc="left", fontsize=10)
    if not right.lines:
        right.text(0.5, 0.5, "these studies kept no clock", ha="center", va="center", transform=right.transAxes)
    for axes in (left, right):
        axes.grid(True, which="major", color="#e6e8eb", linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
