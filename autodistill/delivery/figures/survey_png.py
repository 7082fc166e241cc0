"""Plot of a survey: latency against parameters of untrained students, coloured by family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autodistill.core.errors import UsageError
from autodistill.core.records import LATENCY, SurveyRow
from autodistill.delivery.figures.axes import axis_label
from autodistill.delivery.figures.front_png import word_ticks

_UP = (LATENCY, "macs", "bytes", "onnx_bytes", "peak_memory_mb", "activations")


def survey_png(rows: Sequence[SurveyRow], path: str | Path) -> None:
    """Plot a survey to the file ``path``; its suffix selects the format (PNG, SVG, PDF).

    Raises:
        UsageError: the survey has fewer than two costs.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = [row for row in rows if row.costs]
    across, up = _axes_of(known)
    figure = Figure(figsize=(8.4, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = sorted({str(row.student.get("family", "student")) for row in known})
    colors = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for index, name in enumerate(names):
        of_family = [row for row in known if row.student.get("family", "student") == name]
        points = [(row.costs[across], row.costs[up]) for row in of_family if across in row.costs and up in row.costs]
        axes.scatter(
            [x for x, _ in points], [y for _, y in points], s=26, alpha=0.85, linewidths=0,
            color=colors[index % len(colors)], marker="os^D"[index // len(colors) % 4], label=name,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel=axis_label(across), ylabel=axis_label(up))
    for axis, metric in ((axes.xaxis, across), (axes.yaxis, up)):
        word_ticks(axis, [row.costs[metric] for row in known if row.costs.get(metric, 0) > 0] or [1.0])
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.legend(frameon=False, fontsize=7, ncols=1 + len(names) // 16)
    figure.savefig(path)


def _axes_of(rows: Sequence[SurveyRow]) -> tuple[str, str]:
    """Choose the costs for x axis and y axis."""
    have = list(dict.fromkeys(name for row in rows for name in row.costs))
    across = "params" if "params" in have else next(iter(have), "")
    up = next((name for name in (*_UP, *have) if name in have and name != across), None)
    if up is None:
        raise UsageError(f"a plot of a survey needs two costs; this survey has {', '.join(have) or 'none'}.")
    return across, up
