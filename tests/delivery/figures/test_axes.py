from __future__ import annotations

import pytest

from autodistill.delivery.figures.axes import axis_label, choose_axes
from autodistill.search.objectives.objectives import resolve


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["accuracy", "params", "latency_ms"], ("latency_ms", "accuracy", "params")),
        (["accuracy", "params", "bytes"], ("params", "accuracy", "bytes")),  # the PNG had no size for these
        (["accuracy", "latency_ms"], ("latency_ms", "accuracy", None)),
        (["accuracy", "macs", "latency_ms"], ("latency_ms", "accuracy", "macs")),
        (["accuracy"], ("accuracy", "accuracy", None)),
    ],
)
def test_height_width_and_area_are_different_objectives(names: list[str], chosen: tuple[str | None, ...]) -> None:
    assert tuple(one and one.name for one in choose_axes(resolve(names))) == chosen


def test_labels_have_units_and_say_what_is_logarithmic() -> None:
    assert axis_label("latency_ms") == "latency p50 (ms)"
    assert axis_label("latency_ms", log=True) == "latency p50 (ms, log scale)"
    assert axis_label("params", log=True) == "parameters (log scale)"
    assert axis_label("mine") == "mine"
