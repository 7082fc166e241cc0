"""The front as an image: accuracy against latency, size as area, dominated trials in grey, the teacher marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from autodistill.core.records import Objective, TrialRecord
from autodistill.core.wording import students_counted
from autodistill.delivery.figures.axes import axis_label, choose_axes

if TYPE_CHECKING:
    from autodistill.search.results.front import Front

_FRONT, _GREY, _TEACHER, _INK = "#1f6f8b", "#b8bcc2", "#d1495b", "#2b2d33"
_LABELS = 12
_LARGEST, _SMALLEST = 520.0, 16.0  # areas in square points
MARKERS = {"fp32": "o", "int8": "s"}
"""Markers of the forms of a student; other forms have the last one."""


def front_png(front: Front, path: str | Path, *, empty: str = "") -> None:
    """Plot ``front`` to the file ``path``; its suffix selects the format (PNG, SVG, PDF).

    The y axis is the first objective to maximise. The x axis is the latency, or else the first other objective. The
    area of a mark is the size, if that is an objective.

    Args:
        front: the front, with its dominated trials.
        path: path of the image.
        empty: reason to show if the front is empty.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    across, up, size = choose_axes(front.objectives)
    if front.trials:
        area = _areas([*front.trials, *front.others], size)
        _draw(axes, front, across, up, area)
        _draw_teacher(axes, front.teacher, across, up)
        top = 0.0 if size is None else max(t.values[size.name] for t in (*front.trials, *front.others))
        forms = [name for name in forms_of((*front.trials, *front.others)) if name != "fp32"]
        _legend(axes, size, top, bool(front.others), _teacher_label(front.teacher, across, up), forms)
        _decorate(axes, front, across, up)
        _focus(axes, front, up)
        _frame(axes, front, across, up)  # after _focus, because the space above 1 depends on the y range
    else:
        nothing_drawn(axes, f"the front is empty:\n{empty or 'no trial is COMPLETE yet'}")
    axes.set_title(f"{front.study}: {students_counted(front.trials)} on the front", loc="left", fontsize=11)
    figure.savefig(path)


def nothing_drawn(axes: Any, words: str) -> None:
    """Write a text instead of a plot, and hide the axes, which would show meaningless numbers without data."""
    axes.text(0.5, 0.5, fill(words), ha="center", va="center", transform=axes.transAxes, color=_INK)
    axes.set_axis_off()


def forms_of(trials: Sequence[TrialRecord]) -> list[str]:
    """Return the names of the forms among ``trials``, with ``fp32`` first."""
    return sorted({t.variant for t in trials}, key=lambda name: (name != "fp32", name))


def marker_of(form: str) -> str:
    """Return the marker of a form."""
    return MARKERS.get(form, "s")


Areas = Mapping[tuple[int, str], float]


def _areas(trials: Sequence[TrialRecord], size: Objective | None) -> Areas:
    """Return the area of each mark, by form of a trial, proportional to its size, above a smallest area."""
    if size is None:
        return {t.form: 70.0 for t in trials}
    top = max(t.values[size.name] for t in trials) or 1.0
    return {t.form: max(_SMALLEST, _LARGEST * t.values[size.name] / top) for t in trials}


def _marks(
    axes: Any, trials: Sequence[TrialRecord], across: Objective, up: Objective, area: Areas, **style: Any
) -> None:
    """Draw one mark per trial, with the marker of its form."""
    ordered = sorted(trials, key=lambda t: -area[t.form])  # small marks on top of large ones
    for form in forms_of(trials) or ["fp32"]:
        chosen = [t for t in ordered if t.variant == form]
        x, y = [t.values[across.name] for t in chosen], [t.values[up.name] for t in chosen]
        axes.scatter(x, y, s=[area[t.form] for t in chosen], marker=marker_of(form), edgecolors="white", **style)


def _draw(axes: Any, front: Front, across: Objective, up: Objective, area: Areas) -> None:
    _marks(axes, front.others, across, up, area, color=_GREY, alpha=0.55, linewidths=0.5, zorder=2)
    steps = _staircase(front.trials, across, up)
    if across.direction == "minimize":
        axes.step(*zip(*steps, strict=True), where="post", color=_FRONT, alpha=0.5, linewidth=1.4, zorder=3)
    _marks(axes, front.trials, across, up, area, color=_FRONT, alpha=0.85, linewidths=0.8, zorder=4)
    knee = front.knee()
    if knee is not None:
        point = (knee.values[across.name], knee.values[up.name])
        ring = {"marker": marker_of(knee.variant), "facecolors": "none", "edgecolors": _INK, "linewidths": 1.1}
        axes.scatter(*point, s=area[knee.form] + 90, zorder=5, **ring)
    leftmost = min(t.values[across.name] for t in (*front.trials, *front.others))
    for trial in _to_label(front.trials, across, up, knee):
        radius = 0.72 * math.sqrt(area[trial.form] / math.pi)
        word = f"{trial.called}  knee" if knee is not None and trial.form == knee.form else trial.called
        at = (trial.values[across.name], trial.values[up.name])
        right = at[0] == leftmost  # the y axis is to its left
        axes.annotate(
            word,
            at,
            xytext=(radius + 2 if right else -radius - 2, radius + 2),
            textcoords="offset points",
            ha="left" if right else "right",
            fontsize=8,
            color=_INK,
            zorder=6,
        )


def _frame(axes: Any, front: Front, across: Objective, up: Objective) -> None:
    """Set the axis limits: some width around a single point, and no range above 1 for fractions."""
    shown = [t.values[across.name] for t in (*front.trials, *front.others)]
    if up.name in front.teacher and across.name in front.teacher:
        shown.append(front.teacher[across.name])
    widen(axes, shown)
    heights = [t.values[up.name] for t in (*front.trials, *front.others)]
    heights += [front.teacher[up.name]] if up.name in front.teacher else []
    if up.unit == "fraction" and max(heights) <= 1.0:
        low, high = axes.get_ylim()
        if max(heights) == min(heights):
            low, high = max(0.0, min(heights) - 0.1), 1.0
        axes.set_ylim(low, min(high, 1.0 + 0.05 * (1.0 - low)))  # space for a whole mark at 1


def widen(axes: Any, values: Sequence[float]) -> None:
    """Widen the x range if all points have nearly the same x value."""
    if values and max(values) - min(values) <= 0.02 * abs(max(values)):
        middle = values[0]
        if axes.get_xscale() == "log":
            axes.set_autoscalex_on(False)  # matplotlib would first warn of a single value
            axes.set_xlim(middle / 2.2, middle * 2.2)
        else:
            axes.set_xlim(middle - 0.5 * (abs(middle) or 1.0), middle + 0.5 * (abs(middle) or 1.0))


def _focus(axes: Any, front: Front, up: Objective) -> None:
    """Leave out the worst dominated trials, with a note, if they would flatten the front to a line."""
    losses = [up.loss(t.values[up.name]) for t in front.trials]
    if up.name in front.teacher:
        losses.append(up.loss(front.teacher[up.name]))
    best, worst = min(losses), max(losses)
    limit = worst + 2.0 * max(worst - best, 1e-3)
    out = [t for t in front.others if up.loss(t.values[up.name]) > limit]
    if not out:
        return
    end = up.loss(limit)  # from loss back to value
    axes.set_ylim(**({"bottom": end} if up.direction == "maximize" else {"top": end}))
    place = {"y": 0.015, "va": "bottom"} if up.direction == "maximize" else {"y": 0.985, "va": "top"}
    words = f"{len(out)} dominated outside this range"
    axes.text(x=0.01, s=words, transform=axes.transAxes, fontsize=7.5, color=_INK, alpha=0.7, **place)


def _staircase(trials: Sequence[TrialRecord], across: Objective, up: Objective) -> list[tuple[float, float]]:
    """Return the nondominated points in these two objectives, from left to right."""
    best: list[tuple[float, float]] = []
    for trial in sorted(trials, key=lambda t: (t.values[across.name], up.loss(t.values[up.name]))):
        x, y = trial.values[across.name], trial.values[up.name]
        if not best or up.loss(y) < up.loss(best[-1][1]):
            best.append((x, y))
    return best


def _to_label(
    trials: Sequence[TrialRecord], across: Objective, up: Objective, knee: TrialRecord | None
) -> list[TrialRecord]:
    """Choose the members to label, far enough apart: first the knee, then corners of the line, then the others."""
    points = {t.form: (math.log(max(t.values[across.name], 1e-12)), t.values[up.name]) for t in trials}
    spans = [max(p[i] for p in points.values()) - min(p[i] for p in points.values()) or 1.0 for i in (0, 1)]
    corners = set(_staircase(trials, across, up))

    def rank(trial: TrialRecord) -> tuple[bool, bool, float]:
        corner = (trial.values[across.name], trial.values[up.name]) in corners
        return knee is None or trial.form != knee.form, not corner, up.loss(trial.values[up.name])

    def apart(one: tuple[int, str], other: tuple[int, str]) -> bool:
        (x, y), (a, b) = points[one], points[other]
        return abs(x - a) / spans[0] >= 0.07 or abs(y - b) / spans[1] >= 0.055

    chosen: list[TrialRecord] = []
    for trial in sorted(trials, key=rank):
        if len(chosen) < _LABELS and all(apart(trial.form, t.form) for t in chosen):
            chosen.append(trial)
    return chosen


def _draw_teacher(axes: Any, teacher: Mapping[str, float], across: Objective, up: Objective) -> None:
    if up.name not in teacher:
        return
    axes.axhline(teacher[up.name], color=_TEACHER, linewidth=0.9, linestyle=(0, (5, 4)), alpha=0.7, zorder=1)
    if across.name in teacher:
        axes.scatter(
            teacher[across.name], teacher[up.name], marker="*", s=190, color=_TEACHER, edgecolors="white", zorder=5
        )


def _teacher_label(teacher: Mapping[str, float], across: Objective, up: Objective) -> tuple[str, bool]:
    """Return the legend label of the teacher, and whether it is drawn as a point instead of a line."""
    if up.name not in teacher:
        return "", False
    return f"teacher ({_short(teacher[up.name])})", across.name in teacher


def _legend(
    axes: Any, size: Objective | None, top: float, grey: bool, teacher: tuple[str, bool], forms: Sequence[str]
) -> None:
    from matplotlib.lines import Line2D

    def dot(color: str, points: float, label: str, marker: str = "o", line: Any = "none") -> Any:
        mark = Line2D([], [], color=color, marker=marker, markersize=points, markeredgecolor="white", label=label)
        mark.set_linestyle(line)
        return mark

    marks = [dot(_FRONT, 8, "on the front")]
    marks += [dot(_GREY, 8, "dominated")] if grey else []
    marks += [dot(_INK, 8, f"{form} form", marker_of(form)) for form in forms]
    if teacher[0]:
        marks.append(dot(_TEACHER, 13, teacher[0], "*") if teacher[1] else dot(_TEACHER, 0, teacher[0], "", "--"))
    # the layout reserves space for the last legend, so the wider one is added last
    if size is not None and top > 0:
        samples = [_round(top * share) for share in (1.0, 0.25, 0.05)]
        circles = [
            dot(_FRONT, math.sqrt(max(_SMALLEST, _LARGEST * value / top)), _short(value))
            for value in dict.fromkeys(samples)
        ]
        sizes = axes.legend(
            handles=circles,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            fontsize=8,
            frameon=False,
            labelspacing=1.1,
            borderpad=0.9,
            title=axis_label(size.name),
            title_fontsize=8,
        )
        axes.add_artist(sizes)
    axes.legend(handles=marks, loc="lower left", bbox_to_anchor=(1.01, 0.0), fontsize=8, frameon=False)


def _round(value: float) -> float:
    """Round down to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step for step in (5.0, 2.0, 1.0) if step * power <= value * 1.0001) * power


def _short(value: float) -> str:
    """Format a number briefly: ``1250000`` as ``1.25M``, ``0.9634`` as ``0.963``."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def log_axis(axes: Any, across: Objective, shown: Sequence[float]) -> None:
    """Make the x axis logarithmic if the objective is, with ticks such as ``20k``."""
    if not across.log or not shown or min(shown) <= 0:
        return
    axes.set_xscale("log")
    word_ticks(axes.xaxis, shown)


def word_ticks(axis: Any, shown: Sequence[float]) -> None:
    """Set ticks such as ``20k`` on a logarithmic axis for the positive values ``shown``."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    wide = max(shown) / min(shown) > 12
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if wide else (1.0, 2.0, 3.0, 5.0, 7.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.set_minor_formatter(NullFormatter())


def _decorate(axes: Any, front: Front, across: Objective, up: Objective) -> None:
    log_axis(axes, across, [t.values[across.name] for t in (*front.trials, *front.others)])
    axes.set_xlabel(axis_label(across.name, log=across.log))
    axes.set_ylabel(axis_label(up.name))
    axes.grid(True, which="major", color="#e6e8eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(x=0.12, y=0.08)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
