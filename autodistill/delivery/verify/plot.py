"""Plot of a verification: verified accuracy with its interval, and its difference from the search's accuracy.

Filled marks are on the verified front, hollow ones are not. A thin line connects the accuracy in the search (on
validation) with that on the test split. Crosses are undistilled twins, diamonds are baselines, and the dashed line is
the teacher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autodistill.core.records import LATENCY
from autodistill.core.wording import counted
from autodistill.delivery.figures.axes import axis_label
from autodistill.delivery.figures.front_png import nothing_drawn, widen
from autodistill.search.results.verified import Verified, VerifiedRow

_FRONT, _GREY, _TEACHER, _INK, _TWIN = "#1f6f8b", "#8b9098", "#d1495b", "#2b2d33", "#c08a1e"
_NEAR_X, _NEAR_Y = 0.01, 0.03  # distance in log(x), and as share of the height, below which marks share a label


def verify_png(verified: Verified, path: str | Path) -> None:
    """Plot ``verified`` to the file ``path``; its suffix selects the format (PNG, SVG, PDF)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    across = _axis(verified)
    shown = [row for row in verified.students if row.accuracy is not None and _at(row, across) is not None]
    if not shown:
        nothing_drawn(axes, "no run is finished yet")
    else:
        axes.set_xscale("log")
        for row in shown:
            _draw_student(axes, row, across)
        _number_students(axes, shown, across)
        _draw_others(axes, verified, across)
        axes.margins(x=0.12, y=0.08)
        drawn = [row for row in verified.rows if row.kind != "teacher" and row.accuracy is not None]
        widen(axes, [x for row in drawn if (x := _at(row, across)) is not None])
        _ticks(axes)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
    axes.set_xlabel(axis_label(across, log=True))
    axes.set_ylabel(f"test accuracy, {_seeds(verified)}, 95 % interval")
    count = counted(len(verified.front), "student")
    axes.set_title(f"{verified.study}: {count} on the verified front", loc="left")
    axes.grid(True, which="major", color="#e6e8eb", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path)


def _seeds(verified: Verified) -> str:
    return "one seed" if verified.seeds == 1 else f"mean of {verified.seeds} seeds"


def _axis(verified: Verified) -> str:
    """Choose a cost that every student has for the x axis: a latency if possible, preferably the compared one."""
    names = ["file_latency_ms", LATENCY, "params"]
    if LATENCY in dict(verified.objectives) and LATENCY not in verified.of_files:
        names.remove("file_latency_ms")
    for name in names:
        if all(_at(row, name) is not None for row in verified.students):
            return name
    return "params"


def _at(row: VerifiedRow, across: str) -> float | None:
    value = row.file_latency_ms if across == "file_latency_ms" else row.costs.get(across)
    return None if value is None or value <= 0 else float(value)


def _draw_student(axes: Any, row: VerifiedRow, across: str) -> None:
    x, figure = _at(row, across), row.accuracy
    assert figure is not None
    on_front = row.verdict in ("stays", "joins")
    color = _FRONT if on_front else _GREY
    low, high = figure.low or figure.mean, figure.high or figure.mean
    if row.searched is not None:
        axes.plot([x, x], [row.searched, figure.mean], color=color, linewidth=0.8, linestyle=":", zorder=2)
        axes.plot([x], [row.searched], "_", color=color, markersize=9, zorder=2, label="in the search")
    axes.errorbar(
        [x],
        [figure.mean],
        yerr=[[figure.mean - low], [high - figure.mean]],
        fmt="o",
        markersize=7,
        color=color,
        markerfacecolor=color if on_front else "white",
        capsize=3,
        linewidth=1.1,
        zorder=4,
        label="on the verified front" if on_front else "not on it",
    )


def _number_students(axes: Any, shown: Sequence[VerifiedRow], across: str) -> None:
    """Write trial numbers next to their marks; marks that nearly touch share one label, most accurate first."""
    low, high = axes.get_ylim()
    groups: list[tuple[float, list[tuple[float, int | None]]]] = []  # x; means and trials
    marks = [(_at(row, across) or 0.0, row.accuracy.mean, row.trial) for row in shown if row.accuracy is not None]
    for x, mean, trial in sorted(marks, key=lambda mark: -mark[1]):
        near = (g for at, g in groups if abs(math.log(x / at)) < _NEAR_X and g[-1][0] - mean < _NEAR_Y * (high - low))
        group = next(near, None)
        if group is None:
            groups.append((x, group := []))
        group.append((mean, trial))
    for x, group in groups:
        axes.annotate(
            ", ".join(str(trial) for _, trial in group),
            (x, group[0][0]),
            xytext=(6, 5),
            textcoords="offset points",
            fontsize=8,
            color=_INK,
            zorder=5,
        )


def _draw_others(axes: Any, verified: Verified, across: str) -> None:
    """Draw twins, baselines and the teacher; then remove duplicate legend entries."""
    marks = {
        "twin": ("x", _TWIN, "without distillation"),
        "baseline": ("D", _INK, "baseline"),
        "teacher": ("*", "", ""),
    }
    for row in verified.rows:
        if row.kind == "student" or row.accuracy is None:
            continue
        x, y = _at(row, across), row.accuracy.mean
        if row.kind == "teacher":
            axes.axhline(y, color=_TEACHER, linewidth=0.9, linestyle=(0, (5, 4)), alpha=0.7, label=f"teacher ({y:.4f})")
        elif x is not None:
            marker, color, label = marks[row.kind]
            axes.plot([x], [y], marker=marker, color=color, linestyle="none", markersize=6, zorder=3, label=label)
        if row.kind == "baseline" and x is not None:
            axes.annotate(row.name, (x, y), xytext=(6, -10), textcoords="offset points", fontsize=7.5, color=_INK)
    _once(axes.get_lines())
    _once(axes.containers)


def _once(artists: Sequence[Any]) -> None:
    """Keep only the first of equal labels in the legend."""
    seen: set[str] = set()
    for artist in artists:
        label = str(artist.get_label())
        if label in seen:
            artist.set_label("_" + label)
        seen.add(label)


def _ticks(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1.0, 2.0, 5.0) if high / low > 12 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.3g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
