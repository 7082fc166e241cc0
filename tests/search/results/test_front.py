from __future__ import annotations

import math
from pathlib import Path

import pytest

from autodistill.core.errors import UsageError
from autodistill.core.records import Objective, State, TrialRecord
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.front import Front, HypervolumeBox, propose_box


def trial(number: int, accuracy: float, params: float, state: State = State.COMPLETE) -> TrialRecord:
    return TrialRecord(
        number, state, {"accuracy": accuracy, "params": params}, {"width": number}, {"loss": "kd"}, {}, 0
    )


TWO = resolve(["accuracy", "params"])
TRIALS = [
    trial(0, 0.9, 1000),
    trial(1, 0.8, 100),
    trial(2, 0.7, 500),
    trial(3, 0.8, 100),
    trial(4, 1.0, 1, State.PRUNED),
]


BOX = HypervolumeBox((1.0, 10.0), (0.0, 10000.0))


def front(scale: HypervolumeBox | None = BOX) -> Front:
    return Front.of("toy", TWO, TRIALS, scale=scale)


def test_only_complete_non_dominated_trials_are_on_the_front_cheapest_first() -> None:
    assert [t.number for t in front().trials] == [1, 0]
    assert sorted(t.number for t in front().others) == [2, 3]


def test_the_hypervolume_in_own_units_is_the_area_of_the_two_rectangles() -> None:
    # accuracy 0.8 over params 100..10000, then 0.1 more over 1000..10000
    assert front().hypervolume == pytest.approx(0.8 * 9900 + 0.1 * 9000)


def test_the_share_uses_log_axes_for_counts() -> None:
    # on the log axis from 10 to 10000, 100 lies at 1/3 and 1000 at 2/3
    assert front().hypervolume_share == pytest.approx(0.8 * 2 / 3 + 0.1 * 1 / 3)


def test_an_empty_front_has_no_volume_and_no_knee() -> None:
    empty = Front.of("toy", TWO, [], scale=HypervolumeBox((1.0, 10.0), (0.0, 1000.0)))
    assert (len(empty), empty.hypervolume, empty.hypervolume_share, empty.knee()) == (0, 0.0, 0.0, None)
    assert empty.to_json()["trials"] == []


def test_pick_takes_the_best_member_that_fits() -> None:
    assert front().pick("params <= 500").number == 1
    assert front().pick("params <= 5e3").number == 0
    with pytest.raises(UsageError, match="no student on the front satisfies"):
        front().pick("params <= 5")


def test_the_json_has_the_stable_keys() -> None:
    found = front().to_json()
    assert found["objectives"][0] == {"name": "accuracy", "direction": "maximize", "unit": "fraction"}
    assert found["reference_point"] == [0.0, 10000.0]
    keys = {"number", "state", "values", "student", "distillation", "epochs", "seconds"}
    assert keys <= set(found["trials"][0])


def test_pandas_has_one_row_per_member() -> None:
    table = front().to_pandas()
    assert list(table["number"]) == [1, 0]
    assert {"accuracy", "params", "student.width", "distillation.loss"} <= set(table.columns)


def test_a_scale_spans_what_was_seen_with_ten_percent_to_spare() -> None:
    scale = propose_box(TWO, [{"params": 100.0}, {"params": 1000.0, "accuracy": 0.5}])
    assert scale is not None
    assert scale.reference == (0.0, pytest.approx(1100.0))
    assert scale.ideal == (1.0, pytest.approx(100 / 1.1))
    assert propose_box(TWO, [{"accuracy": 0.3}]) is None


def test_the_box_grows_with_the_costs_of_trained_students_and_not_with_what_is_trained() -> None:
    three = resolve(["accuracy", "params", "loss"])
    box = HypervolumeBox((1.0, 100.0, 0.1), (0.0, 1000.0, 3.0))
    inside = {"accuracy": 0.5, "params": 500.0, "loss": 1.0}
    assert box.holding(three, [inside]) == box
    assert box.holding(three, []) == box
    wider = box.holding(three, [inside, {**inside, "params": 50.0}, {**inside, "params": 2000.0, "loss": 1e6}])
    assert wider == HypervolumeBox((1.0, 50.0, 0.1), (0.0, pytest.approx(2200.0), 3.0))
    best = Front.of("toy", TWO, [trial(0, 0.9, 1500.0)], scale=HypervolumeBox((1.0, 100.0), (0.0, 1000.0)))
    assert best.hypervolume_share == 0.0
    held = best.scale.holding(TWO, [t.values for t in best.trials])
    assert Front.of("toy", TWO, best.trials, scale=held).hypervolume_share > 0.0


def test_infinite_losses_cannot_reach_the_front(tmp_path: Path) -> None:
    loss = Objective("loss", "minimize", "nats", "trained")
    bad = TrialRecord(0, State.COMPLETE, {"loss": math.inf}, {}, {}, {}, 0)
    good = TrialRecord(1, State.COMPLETE, {"loss": 1.0}, {}, {}, {}, 0)
    assert [t.number for t in Front.of("x", [loss], [bad, good]).trials] == [1]


def test_the_repr_of_a_front_is_one_line() -> None:
    assert repr(front()) == "<Front 'toy': 2 students, accuracy 0.8 to 0.9, params 100 to 1,000>"
    assert repr(Front.of("toy", TWO, TRIALS[:1])) == "<Front 'toy': 1 student, accuracy 0.9, params 1,000>"
    assert repr(Front.of("toy", TWO, [])) == "<Front 'toy': 0 students>"
