"""Searches within a budget of time, on a simulated clock: what they leave unspent, and that something is finished."""

from __future__ import annotations

import pytest
from simulated import World, make_study, search

from autodistill.core.records import Candidate, Report, State
from autodistill.search.rungs.levels import Rungs
from autodistill.search.rungs.teacher_time import UncachedViews, views_key

THIRTY = Rungs.geometric(30)
NINE = Rungs.geometric(9)

# Seconds of an epoch, of a view of the teacher, of the survey; budget; rungs. A full training of the quickest student
# fits into what the survey leaves in each of them, at the slowest that the machine gets.
FEW = {
    "one training fits": (World(6.0, survey=60.0, start=10.0), 360.0, THIRTY),
    "a cold teacher": (World(3.0, cold=30.0, survey=100.0, start=10.0), 1080.0, THIRTY),
    "a slow teacher, few epochs": (World(4.0, cold=40.0, survey=60.0, start=10.0), 600.0, NINE),
}


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("case", list(FEW))
def test_a_front_is_never_empty_where_one_full_training_fits(
    case: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, budget, rungs = FEW[case]
    found = search(monkeypatch, world, budget=budget, workers=workers, rungs=rungs, sampler="random")
    assert found.complete >= 1
    assert found.front >= 1


@pytest.mark.slow
@pytest.mark.parametrize("drift", [1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("sampler", ["front", "random"])
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("case", list(FEW))
def test_a_front_is_found_with_any_sampler_seed_or_machine(
    case: str, workers: int, sampler: str, seed: int, drift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, budget, rungs = FEW[case]
    world = World(**{**vars(world), "drift": drift})
    found = search(monkeypatch, world, budget=budget, workers=workers, rungs=rungs, sampler=sampler, seed=seed)
    assert found.front >= 1
    assert found.unspent < 0.25


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_twenty_minutes_of_two_workers_finish_a_dozen_and_waste_little(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(3.0, cold=9.0, survey=120.0, start=10.0)
    found = search(monkeypatch, world, budget=1200.0, workers=2, rungs=THIRTY, seed=seed)
    assert found.complete >= 12
    assert found.unspent < 0.1
    assert found.lost < 0.1


def test_the_first_forward_passes_of_a_teacher_do_not_end_a_search_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of the time was left unspent when a trial's epoch time included its wait for the teacher."""
    world = World(3.0, cold=30.0, survey=100.0, start=10.0)
    found = search(monkeypatch, world, budget=1080.0, workers=1, rungs=THIRTY, sampler="random")
    assert found.unspent < 0.2


def test_a_view_is_paid_for_once_and_only_as_deep_as_others_have_been() -> None:
    cold, crop = UncachedViews(), views_key({}, {"augment": "crop", "lr": 0.1})
    assert views_key({}, {"augment": "crop", "lr": 0.2}) == crop
    assert len({crop, views_key({}, {"augment": "none"}), views_key({"teacher": "b"}, {"augment": "crop"})}) == 3
    assert cold.ahead(crop, 0.0, 30.0) == 0.0  # unknown cost
    cold.learn(0, crop, 3.0, 12.0)
    assert cold.ahead(crop, 0.0, 3.0) == 0.0
    assert cold.ahead(crop, 0.0, 30.0) == pytest.approx(27 * 4.0)
    assert cold.ahead_of(0, 3.0, 10.0) == pytest.approx(7 * 4.0)
    assert cold.ahead("another", 0.0, 10.0) == pytest.approx(10 * 4.0)
    cold.learn(1, crop, 10.0, 28.0)  # it found three views
    assert cold.ahead_of(0, 3.0, 10.0) == 0.0
    cold.learn(0, crop, 10.0, 12.0)
    assert cold.ahead(crop, 0.0, 30.0) == pytest.approx(20 * 4.0)
    assert cold.ahead_of(7, 0.0, 30.0) == 0.0  # no report says that it asks a teacher


def test_waiting_for_the_teacher_and_building_are_no_part_of_the_epoch_time() -> None:
    study = make_study(Rungs((1, 3, 9)), sampler="random")
    with study.running("5m"):
        candidate = study.ask()
        assert isinstance(candidate, Candidate)
        study.report(candidate, Report(0, {"params": 10.0, "latency_ms": 1.0}, seconds=20.0))
        study.report(candidate, Report(1, {"accuracy": 0.5}, 1.0, 60.0, teacher_seconds=35.0))
        assert study._scheduler.epoch_time.of(candidate.number, {}) == pytest.approx(5.0)
        assert study.spent.device_seconds == 60.0
        again = make_study(Rungs((1, 3, 9)), sampler="random")
        record = study.trials()[candidate.number]
    assert record.rungs[1]["teacher_seconds"] == 35.0
    assert record.state is not State.COMPLETE
    assert "teacher_seconds" not in record.latest
    assert again.trials() == []
