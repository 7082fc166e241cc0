from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autodistill.core.records import State, TrialRecord
from autodistill.delivery.figures.parallel_figure import coordinates, parallel_figure
from autodistill.delivery.figures.study_figures import (
    front_figure,
    hypervolume_figure,
    importance_figure,
    rung_curves_figure,
)
from autodistill.delivery.figures.style import log_ticks, short
from autodistill.delivery.figures.trial_facts import hover_text
from autodistill.search.analysis.trajectory import TrajectoryStep
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.front import Front, HypervolumeBox
from autodistill.search.results.gain import gain_over_undistilled

THREE = resolve(["accuracy", "params", "latency_ms"])
POINTS = [(0.95, 1e6, 3.0), (0.90, 1e5, 1.0), (0.85, 2e4, 0.5), (0.80, 9e5, 4.0), (0.89, 5e5, 1.5)]


def trial(number: int, accuracy: float, params: float, latency: float, **keys: Any) -> TrialRecord:
    values = {"accuracy": accuracy, "params": params, "latency_ms": latency}
    rungs = {0: {"params": params, "epochs": 0.0}, 1: {"accuracy": accuracy / 2, "epochs": 3.0, "seconds": 1.0}}
    given = {
        "student": {"width": number},
        "distillation": {"loss": "kd"},
        "rungs": rungs,
        "seed": 0,
        "train": {},
        **keys,
    }
    return TrialRecord(number, State.COMPLETE, values, **given)


TRIALS = [trial(i, *point) for i, point in enumerate(POINTS)]


def front(teacher: dict[str, float] | None = None) -> Front:
    return Front.of("flowers", THREE, TRIALS, scale=HypervolumeBox((1.0, 1e4, 0.1), (0.0, 2e6, 5.0)), teacher=teacher)


def traces(figure: Any) -> dict[str, Any]:
    return {trace.meta["role"]: trace for trace in figure.data}


def test_the_front_figure_has_members_dominated_trials_and_a_teacher() -> None:
    found = traces(front_figure(front({"accuracy": 0.97, "latency_ms": 8.0}), TRIALS))
    assert set(zip(found["front"].x, found["front"].y, strict=True)) == {(3.0, 0.95), (1.0, 0.90), (0.5, 0.85)}
    assert set(zip(found["dominated"].x, found["dominated"].y, strict=True)) == {(4.0, 0.80), (1.5, 0.89)}
    assert (found["teacher"].x[0], found["teacher"].y[0]) == (8.0, 0.97)
    assert list(zip(found["stairs"].x, found["stairs"].y, strict=True)) == [(0.5, 0.85), (1.0, 0.90), (3.0, 0.95)]
    assert found["dominated"].marker.opacity < 0.5 < found["front"].marker.opacity


def test_the_area_of_a_mark_is_proportional_to_the_parameters() -> None:
    marks = traces(front_figure(front()))["front"]
    size = dict(zip((row[0] for row in marks.customdata), marks.marker.size, strict=True))
    assert size[0.0] ** 2 == pytest.approx(10 * size[1.0] ** 2)


def test_customdata_holds_every_axis_that_the_page_may_offer() -> None:
    figure = front_figure(front())
    axes = [axis["name"] for axis in figure.layout.meta["axes"]]
    assert axes[:3] == ["accuracy", "params", "latency_ms"]
    assert axes[-1] == "trial"
    for row in traces(figure)["front"].customdata:
        shown = dict(zip(axes, row[1:], strict=True))
        assert [shown["accuracy"], shown["params"], shown["latency_ms"]] == list(POINTS[int(row[0])])
        assert shown["trial"] == row[0]


def test_axes_are_logarithmic_where_the_objective_is_and_have_round_ticks() -> None:
    figure = front_figure(front())
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "linear")
    assert {0.5, 1.0, 2.0, 5.0} <= set(figure.layout.xaxis.tickvals)


@pytest.mark.parametrize(("low", "high", "inside"), [(0.3, 4, {0.5, 1, 2}), (10, 1e7, {10, 1e5, 1e7})])
def test_ticks_cover_the_values(low: float, high: float, inside: set[float]) -> None:
    values = log_ticks(low, high)["tickvals"]
    assert inside <= {float(f"{value:.6g}") for value in values}
    assert min(values) <= low
    assert max(values) >= high


@pytest.mark.parametrize(("low", "high"), [(0.162, 0.324), (0.13, 0.61), (0.3, 4.0), (10.0, 9000.0), (1e2, 1e7)])
def test_there_are_three_ticks_or_more_within_the_values(low: float, high: float) -> None:
    assert sum(low <= value <= high for value in log_ticks(low, high)["tickvals"]) >= 3


def test_a_ring_marks_the_knee() -> None:
    found, marks = front(), traces(front_figure(front()))
    knee = found.knee()
    assert knee is not None
    assert (marks["knee"].x[0], marks["knee"].y[0]) == (knee.values["latency_ms"], knee.values["accuracy"])
    assert marks["knee"].marker.size[0] > marks["front"].marker.size[list(marks["front"].x).index(marks["knee"].x[0])]


def test_an_empty_front_says_why_and_shows_no_axes() -> None:
    figure = front_figure(Front.of("flowers", THREE, []), empty="nobody keeps to accuracy >= 0.999")
    assert "nobody keeps to accuracy &gt;= 0.999" in figure.layout.annotations[0].text
    assert (figure.layout.xaxis.visible, figure.layout.yaxis.visible) == (False, False)


def test_ticks_of_what_has_no_logarithm_are_left_to_plotly() -> None:
    assert log_ticks(0.0, 5.0) == {}


def test_numbers_on_ticks_are_short() -> None:
    assert [short(v) for v in (0.5, 20, 1500, 2e6, 3e9)] == ["0.5", "20", "1.5k", "2M", "3G"]


def test_verified_means_are_drawn_with_their_spread() -> None:
    found = traces(front_figure(front(), TRIALS, verified={1: (0.88, 0.004), 4: (0.87, 0.002)}))["verified"]
    assert dict(zip((row[0] for row in found.customdata), found.y, strict=True)) == {1.0: 0.88, 4.0: 0.87}
    assert list(found.error_y.array) == [0.004, 0.002]


def test_verified_means_lie_within_the_frame_with_their_bars() -> None:
    one = Front.of("flowers", THREE, [trial(0, 0.95, 1e5, 1.0), trial(1, 0.90, 1e6, 2.0), trial(2, 0.93, 1e6, 2.0)])
    low, high = front_figure(one, verified={0: (0.92, 0.01)}).layout.yaxis.range
    assert low < 0.91 < 0.95 < high
    low, high = front_figure(one, verified={0: (0.96, 0.01), 77: (0.1, 0.0)}).layout.yaxis.range  # 77 is not drawn
    assert 0.94 < low < 0.95 < 0.97 < high
    assert front_figure(one, verified={1: (0.89, 0.0)}).layout.yaxis.range is None  # nothing is below the frame


def test_verified_accuracies_are_drawn_on_an_axis_of_accuracy_alone() -> None:
    means = {0: (0.94, 0.004)}
    agreeing = replace(TRIALS[0], values={"agreement": 0.8, "params": 1e6})
    other = Front.of("flowers", resolve(["agreement", "params"]), [agreeing])
    assert "verified" not in traces(front_figure(other, verified=means))
    second = Front.of("flowers", resolve(["params", "accuracy"]), TRIALS)
    assert list(traces(front_figure(second, verified=means))["verified"].y) == [0.94]


def test_words_of_a_trial_are_escaped_in_hover_text() -> None:
    bad = trial(7, 0.5, 1.0, 1.0, student={"family": "<script>"}, train={"<b>": 1})
    assert "<script>" not in hover_text(bad, THREE)
    assert "&lt;script&gt;" in hover_text(bad, THREE)
    assert "&lt;b&gt;" in hover_text(bad, THREE)


def test_gain_is_over_the_best_undistilled_run_of_the_same_student() -> None:
    same = {"student": {"width": 8}}
    plain = [trial(i, a, 1.0, 1.0, distillation={"loss": "none"}, **same) for i, a in enumerate((0.8, 0.83))]
    taught = trial(2, 0.85, 1.0, 1.0, **same)
    assert gain_over_undistilled(taught, [*plain, taught], THREE[0]) == pytest.approx(0.02)
    assert gain_over_undistilled(plain[0], [*plain, taught], THREE[0]) is None
    assert gain_over_undistilled(trial(3, 0.9, 1.0, 1.0), plain, THREE[0]) is None


def test_rung_curves_keep_the_front_and_thin_the_rest_evenly() -> None:
    many = [trial(i, 0.5, 1.0, 1.0) for i in range(1000)]
    figure = rung_curves_figure(many, THREE[0], on_front=[3, 999], limit=102)
    drawn = {trace.name: trace for trace in figure.data}
    assert list(drawn) == ["complete, dominated (100)", "on the front (2)"]
    assert "102 of 1000" in figure.layout.title.text
    assert list(drawn["on the front (2)"].y) == [0.25, None, 0.25, None]
    assert list(drawn["on the front (2)"].x)[:1] == [3.0]


def test_curves_are_coloured_by_how_the_trial_ended() -> None:
    ends = [State.PRUNED, State.FAIL, State.PARTIAL, State.COMPLETE]
    mixed = [
        TrialRecord(i, s, {}, {}, {}, {}, 0, rungs={1: {"accuracy": 0.5, "epochs": 1}}) for i, s in enumerate(ends)
    ]
    names = [trace.name for trace in rung_curves_figure(mixed, THREE[0]).data]
    assert names == ["stopped (1)", "failed (1)", "unfinished (1)", "complete, dominated (1)"]


def test_hypervolume_steps_from_nothing_in_a_unit_that_suits() -> None:
    steps = [TrajectoryStep(3600.0, 30.0, 4, 0.5, 1, 1), TrajectoryStep(7200.0, 60.0, 9, 0.7, 5, 2)]
    by_time = hypervolume_figure(steps)
    assert list(by_time.data[0].x) == [0.0, 60.0, 120.0]
    assert list(by_time.data[0].y) == [0.0, 0.5, 0.7]
    assert "minutes" in by_time.layout.xaxis.title.text
    assert list(hypervolume_figure(steps, against="epochs").data[0].x) == [0.0, 30.0, 60.0]
    assert list(hypervolume_figure(steps, against="trials").data[0].x) == [0.0, 4, 9]
    finished = hypervolume_figure(steps, against="finished")
    assert list(finished.data[0].x) == [0.0, 1, 2]
    assert finished.layout.xaxis.title.text == "trials trained to the end"


def test_importance_shows_the_weightiest_setting_first() -> None:
    figure = importance_figure({"accuracy": {"lr": 0.2, "<b>": 0.7}, "params": {"width": 0.9}})
    assert list(figure.data[0].y) == ["width", "&lt;b&gt;", "lr"]
    assert list(figure.data[0].x) == [0.0, 0.7, 0.2]
    assert figure.layout.yaxis.autorange == "reversed"


def test_parallel_axes_are_the_settings_that_vary_and_the_objectives() -> None:
    some = [
        trial(0, 0.5, 100.0, 1.0, student={"family": "a", "width": 4}, train={"lr": 0.001, "same": 1}),
        trial(1, 0.7, 1000.0, 2.0, student={"family": "b", "width": 8}, train={"lr": 0.1, "same": 1}),
        trial(2, 0.9, 10000.0, 3.0, student={"family": "b", "width": 16}, train={"lr": 0.01, "same": 1}),
    ]
    axes = {axis.name: axis for axis in coordinates(some, THREE)}
    assert list(axes) == ["student.family", "student.width", "train.lr", "accuracy", "params", "latency_ms"]
    heights = {name: {number: at for (number, _), at in axis.places.items()} for name, axis in axes.items()}
    assert heights["train.lr"] == pytest.approx({0: 0.0, 1: 1.0, 2: 0.5})  # logarithmic from a factor of ten on
    assert heights["student.width"] == pytest.approx({0: 0.0, 1: 1 / 3, 2: 1.0})
    assert heights["params"] == pytest.approx({0: 0.0, 1: 0.5, 2: 1.0})
    assert heights["student.family"] == {0: 0.25, 1: 0.75, 2: 0.75}


def test_parallel_coordinates_of_many_trials_are_the_best_and_the_front() -> None:
    many = [trial(i, i / 1000, 10.0 + i, 1.0) for i in range(1000)]
    figure = parallel_figure(many, THREE, on_front=[(0, "fp32"), (999, "fp32")])
    drawn = sum(list(trace.y).count(None) for trace in figure.data)
    assert drawn == 251  # the best 250, and the front's own trial 0
    assert "the best 251 of 1000" in figure.layout.title.text


def test_figures_are_plain_json_and_can_be_written_alone(tmp_path: Path) -> None:
    figure = front_figure(front({"accuracy": 0.97}))
    assert json.loads(figure.to_json())["layout"]["meta"]["x"] == "latency_ms"
    figure.write_html(tmp_path / "front.html", include_plotlyjs=True)
    assert (tmp_path / "front.html").stat().st_size > 1_000_000


def test_every_form_has_a_line_of_its_own_among_the_settings() -> None:
    both = [trial(0, 0.9, 100.0, 1.0), trial(0, 0.8, 100.0, 2.0, variant="int8")]
    axes = {axis.name: axis for axis in coordinates(both, THREE)}
    assert set(axes["latency_ms"].places.values()) == {0.0, 1.0}
    assert [words for _, words in axes["variant"].ticks] == ["fp32", "int8"]


def test_a_form_has_a_shape_and_a_name_of_its_own_and_verified_means_stay_with_fp32() -> None:
    plain = [trial(0, 0.9, 100.0, 1.0), trial(1, 0.8, 50.0, 0.9)]
    forms = [*plain, trial(0, 0.9, 30.0, 2.0, variant="int8")]
    found = Front("f", THREE, tuple(forms))
    marks = traces(front_figure(found, forms, verified={0: (0.85, 0.01)}))
    shape = dict(zip(marks["front"].x, marks["front"].marker.symbol, strict=True))
    assert shape == {1.0: "circle", 0.9: "circle", 2.0: "square"}
    size = dict(zip(marks["front"].x, marks["front"].marker.size, strict=True))
    assert size[1.0] > size[2.0]
    assert any("trial 0 (int8)" in words for words in marks["front"].hovertext)
    assert marks["form"].name == "int8 form"
    assert list(marks["verified"].x) == [1.0]
    assert "form" not in traces(front_figure(Front("f", THREE, tuple(plain)), plain))
