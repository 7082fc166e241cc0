"""Heat maps of the confusion matrices of a student and its teacher on the test split, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autodistill.delivery.figures.style import BLUE, style
from autodistill.delivery.figures.trial_facts import text

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from autodistill.search.results.verified import ClassFigures, Verified, VerifiedRow

MOST = 40
"""Largest number of classes that are all shown."""

_SHOWN = 30  # classes shown of more than that
_NUMBERED = 14  # classes up to which the shares are written into the cells
_OTHERS = "all others"
_TICKS = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class _Map:
    """One heat map.

    Attributes:
        title: whose decisions it shows.
        matrix: test images by class and decided class.
    """

    title: str
    matrix: Sequence[Sequence[float]]


def confusion_figure(verified: Verified, row: VerifiedRow) -> go.Figure | None:
    """Draw which classes a student takes for which, beside its teacher; ``None`` if that is not known.

    Rows are the classes of the images, columns the decisions; colours are shares of a class's images, on a scale of
    square roots, so that rare confusions can be seen. The classes that the student loses most against its teacher are
    first. Of more than ``MOST`` classes, the ``_SHOWN`` that it loses most and those that they are taken for are shown;
    decisions for other classes are one column.

    Args:
        verified: the verification.
        row: a student's row.
    """
    import plotly.graph_objects as go

    if not row.confusion:
        return None
    teacher = verified.teacher_row()
    chosen = shown_classes(verified.by_class(row))
    maps = [_Map(f"trial {row.trial}", verified.confusion(row))]
    if teacher is not None and teacher.confusion:
        maps.append(_Map("teacher", verified.confusion(teacher)))
    figure = go.Figure()
    for place, one in enumerate(maps, 1):
        figure.add_trace(_heat(one, verified.classes, chosen, place))
    count = (
        f"{len(chosen)} of {len(verified.classes)} classes" if len(chosen) < len(verified.classes) else "all classes"
    )
    figure.update_layout(**style(f"Decisions on the test images, {count}"))
    figure.update_layout(**_layout(maps, verified.classes, chosen))
    return figure


def shown_classes(figures: Sequence[ClassFigures]) -> list[int]:
    """Return the positions of the classes that are shown, in order; classes without test images are left out."""
    known = [one for one in figures if one.images]
    if len(known) <= MOST:
        return [one.index for one in known]
    by_name = {one.name: one for one in known}
    chosen: dict[int, None] = {}
    for one in known:
        for each in (one, by_name.get(one.taken_for)):
            if each is not None and len(chosen) < _SHOWN:
                chosen.setdefault(each.index)
    return list(chosen)


def _heat(one: _Map, classes: Sequence[str], chosen: Sequence[int], place: int) -> Any:
    import plotly.graph_objects as go

    several = len(chosen) < len(classes)
    shares, words = [], []
    for true in chosen:
        counts, images = one.matrix[true], sum(one.matrix[true])
        cells = [(classes[c], counts[c]) for c in chosen]
        if several:
            cells.append((_OTHERS, images - sum(counts[c] for c in chosen)))
        shares.append([count / images for _, count in cells])
        words.append(
            [
                f"<b>{text(classes[true])}</b> decided as <b>{text(name)}</b><br>{count:.3g} of {images:.3g} images "
                f"({count / images:.1%})"
                for name, count in cells
            ]
        )
    numbered = len(chosen) <= _NUMBERED
    return go.Heatmap(
        z=[[math.sqrt(share) for share in row] for row in shares],
        text=[[f"{100 * share:.0f}" if share >= 0.005 else "" for share in row] for row in shares],
        texttemplate="%{text}" if numbered else None,
        hovertext=words,
        hoverinfo="text",
        zmin=0,
        zmax=1,
        colorscale=[[0.0, "rgba(31,131,196,0.05)"], [1.0, BLUE]],
        xgap=1,
        ygap=1,
        showscale=place == 1,
        colorbar={
            "title": {"text": "share of<br>the class"},
            "tickvals": [math.sqrt(tick) for tick in _TICKS],
            "ticktext": [f"{tick:.0%}" for tick in _TICKS],
            "thickness": 12,
        },
        xaxis="x" if place == 1 else "x2",
        yaxis="y" if place == 1 else "y2",
    )


def _layout(maps: Sequence[_Map], classes: Sequence[str], chosen: Sequence[int]) -> dict[str, Any]:
    """Return axes and titles: both maps have the classes in the same order, names stand at the left only."""
    names = [_short(classes[c]) for c in chosen]
    columns = [*names, _OTHERS] if len(chosen) < len(classes) else names
    size = 11 if len(chosen) <= 20 else 9
    across: dict[str, Any] = {
        "tickvals": list(range(len(columns))), "ticktext": [text(name) for name in columns], "tickangle": -90,
        "showgrid": False, "zeroline": False, "tickfont": {"size": size}, "constrain": "domain",
    }  # fmt: skip
    down: dict[str, Any] = {
        "tickvals": list(range(len(names))), "ticktext": [text(name) for name in names], "autorange": "reversed",
        "showgrid": False, "zeroline": False, "tickfont": {"size": size},
    }  # fmt: skip
    width = 0.485 if len(maps) > 1 else 1.0
    layout: dict[str, Any] = {
        "xaxis": {**across, "domain": [0.0, width], "title": {"text": "decided as"}},
        "yaxis": {**down, "title": {"text": "class of the images"}},
        "height": 240 + max(18 * len(names), 200),
        "annotations": [
            {
                "text": text(one.title), "x": place * (1 - width) + width / 2, "y": 1.0, "xref": "paper",
                "yref": "paper", "yanchor": "bottom", "showarrow": False, "font": {"size": 13},
            }
            for place, one in enumerate(maps)
        ],
    }  # fmt: skip
    if len(maps) > 1:
        layout["xaxis2"] = {**across, "domain": [1 - width, 1.0], "title": {"text": "decided as"}}
        layout["yaxis2"] = {**down, "anchor": "x2", "matches": "y", "showticklabels": False}
    return layout


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
