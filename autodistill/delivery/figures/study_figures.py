"""Interactive Plotly figures of a study: the front, rung curves, hypervolume, importance, and comparisons.

The report, the dashboard and ``front --plot FILE.html`` use the same figures. All text from users is escaped, because
Plotly interprets some HTML in labels. Colours are based on Okabe and Ito's palette, which colour-blind readers can
distinguish; marks also differ in shape and size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autodistill.core.records import Objective, State, TrialRecord
from autodistill.core.wording import student_words
from autodistill.delivery.figures.comparison_figure import comparison_figure
from autodistill.delivery.figures.front_figure import front_figure
from autodistill.delivery.figures.style import (
    BLUE,
    GOLD,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    PURPLE,
    SKY,
    label,
    style,
    time_unit,
)
from autodistill.delivery.figures.trial_facts import curve_of, figure_of, text

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from autodistill.search.analysis.trajectory import TrajectoryStep

__all__ = ["comparison_figure", "front_figure", "hypervolume_figure", "importance_figure", "rung_curves_figure"]

_MOST_CURVES, _MOST_BARS = 300, 14


def rung_curves_figure(
    trials: Sequence[TrialRecord],
    objective: Objective,
    *,
    on_front: Sequence[int] = (),
    dominated: Sequence[int] | None = None,
    limit: int = _MOST_CURVES,
) -> go.Figure:
    """Plot ``objective`` over epochs for every trial, coloured by the state in which the trial ended.

    Args:
        trials: all trials; beyond ``limit``, an even sample of those off the front is drawn and the title notes it.
        objective: an objective measured by training.
        on_front: numbers of the members of the front, which are always drawn.
        dominated: numbers of the COMPLETE trials that satisfy all bounds and are not on the front; ``None`` for all
            COMPLETE trials that are not on the front.
        limit: largest number of curves.
    """
    import plotly.graph_objects as go

    curves = {t.number: curve for t in trials if (curve := curve_of(t, objective.name))}
    having = [t for t in trials if t.number in curves]
    first = set(on_front)
    members = [t for t in having if t.number in first]
    rest = [t for t in having if t.number not in first]
    kept = _even_sample(rest, max(0, limit - len(members)))
    figure = go.Figure()
    for name, color, dash, chosen in _curve_groups(kept, members, dominated):
        if chosen:
            figure.add_trace(_joined(name, color, dash, chosen, curves, objective))
    shown = len(members) + len(kept)
    note = "" if shown == len(having) else f" ({shown} of {len(having)} trials with a rung, evenly chosen)"
    figure.update_layout(style(f"{label(objective.name)} at each rung{note}"))
    epochs = sorted({epochs for curve in curves.values() for epochs, _ in curve})
    figure.update_xaxes(title="epochs", type="log", **({"tickvals": epochs} if len(epochs) <= 12 else {}))
    figure.update_yaxes(title=label(objective.name))
    return figure


def hypervolume_figure(steps: Sequence[TrajectoryStep], *, against: str = "seconds") -> go.Figure:
    """Plot the share of the reference box that the front dominates over time, epochs or trials.

    Args:
        steps: steps of the search.
        against: x axis, ``seconds``, ``epochs``, ``trials`` (started) or ``finished``. ``trials`` and ``finished``
            differ much: in a short search with pauses, nearly all trials start before the first one finishes.
    """
    import plotly.graph_objects as go

    titles = {"seconds": "time of the search", "epochs": "epochs trained", "trials": "trials begun"}
    titles["finished"] = "finished trials"
    unit, word = time_unit([s.seconds for s in steps]) if against == "seconds" else (1.0, "")
    before = [0.0, *(step.hypervolume_share for step in steps)]  # a step at which nothing grew changes no line
    steps = [s for s, share in zip(steps, before, strict=False) if s is steps[-1] or s.hypervolume_share > share]
    x = [0.0, *(getattr(step, against) / unit for step in steps)]
    y = [0.0, *(step.hypervolume_share for step in steps)]
    figure = go.Figure(go.Scatter(x=x, y=y, mode="lines", line={"shape": "hv", "color": BLUE, "width": 2}, name=""))
    figure.update_traces(hovertemplate="%{x:.4g}: %{y:.4f}<extra></extra>")
    figure.update_layout(style(f"Hypervolume against {titles[against]}"), showlegend=False)
    across = "trials trained to the end" if against == "finished" else f"{titles[against]}{word}"
    figure.update_xaxes(title=across, rangemode="tozero")
    figure.update_yaxes(title="share of the reference box", range=[0, 1])
    return figure


def importance_figure(shares: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Plot the share of each objective's variance that each parameter explains; ``shares[objective][parameter]``."""
    import plotly.graph_objects as go

    names = list(dict.fromkeys(name for part in shares.values() for name in part))
    names.sort(key=lambda name: -max(part.get(name, 0.0) for part in shares.values()))
    names = names[:_MOST_BARS]
    figure = go.Figure()
    for index, (objective, part) in enumerate(shares.items()):
        figure.add_trace(
            go.Bar(
                y=[text(name) for name in names],
                x=[part.get(name, 0.0) for name in names],
                orientation="h",
                name=label(objective),
                marker={
                    "color": PALETTE[index % len(PALETTE)],
                    "pattern": {
                        "shape": ("", "/", ".", "x", "-", "+")[index % 6],
                        "fillmode": "overlay",
                        "fgopacity": 0.45,
                    },
                },
                hovertemplate="%{y}: %{x:.3f}<extra>%{fullData.name}</extra>",
            )
        )
    figure.update_layout(style("Which settings matter"), barmode="group")
    figure.update_layout(height=110 + len(names) * (14 + 15 * len(shares)))
    figure.update_xaxes(title="share of variance", rangemode="tozero")
    figure.update_yaxes(automargin=True, autorange="reversed")
    return figure


def _even_sample(trials: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """Return ``count`` trials, evenly spaced in their order; all of them if there are no more."""
    if len(trials) <= count:
        return list(trials)
    return [trials[int(i * len(trials) / count)] for i in range(count)]


Group = tuple[str, str, str, list[TrialRecord]]


def _curve_groups(
    rest: Sequence[TrialRecord], members: Sequence[TrialRecord], dominated: Sequence[int] | None
) -> list[Group]:
    """Return label, colour, dash and trials of each group; the front is last, so that it is drawn on top."""

    def ended(*states: State) -> list[TrialRecord]:
        return [t for t in rest if t.state in states]

    complete = ended(State.COMPLETE)
    inside = {t.number for t in complete} if dominated is None else set(dominated)
    within = [t for t in complete if t.number in inside]
    return [
        ("stopped", GREY, "solid", ended(State.PRUNED)),
        ("failed", PURPLE, "dot", ended(State.FAIL)),
        ("unfinished", GOLD, "dash", ended(State.PARTIAL, State.RUNNING)),
        ("complete, outside a bound", GREEN, "dashdot", [t for t in complete if t.number not in inside]),
        ("complete, dominated", SKY, "solid", within),
        ("on the front", ORANGE, "solid", list(members)),
    ]


def _joined(
    ended: str,
    color: str,
    dash: str,
    chosen: Sequence[TrialRecord],
    curves: Mapping[int, Sequence[tuple[float, float]]],
    objective: Objective,
) -> go.Scatter:
    """Return the curves of one group as a single trace with gaps, because many traces are slow to draw."""
    import plotly.graph_objects as go

    x: list[float | None] = []
    y: list[float | None] = []
    words: list[str | None] = []
    for trial in chosen:
        title = f"<b>trial {trial.number}</b> {text(student_words(trial.student))}"
        why = f"<br>{text(trial.reason)}" if trial.reason else ""
        for epochs, value in curves[trial.number]:
            x.append(epochs)
            y.append(value)
            words.append(f"{title}<br>epoch {epochs:g}: {figure_of(value, objective.unit)}{why}")
        x.append(None)
        y.append(None)
        words.append(None)
    front = ended == "on the front"
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name=f"{ended} ({len(chosen)})",
        line={"color": color, "dash": dash, "width": 1.8 if front else 1.2},
        marker={"size": 6 if front else 4},
        opacity=1.0 if front else 0.6,
        hoverinfo="text",
        hovertext=words,
        connectgaps=False,
    )
