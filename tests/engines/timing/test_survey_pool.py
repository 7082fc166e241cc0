"""Which students are surveyed."""

import pytest

import autodistill as ad
from autodistill.core.records import LatencyTarget, TeacherSpec
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.setup import prepare
from autodistill.engines.timing.survey_pool import LOOKS, MAX_POOL, MIN_POOL, draw_pool, pool_size
from autodistill.search.space.space import Space
from autodistill.training.costs.cost_memory import CostMemory
from autodistill.training.costs.counts import known_costs
from autodistill.training.students import build as students
from autodistill.training.survey.predicted_costs import UnsurveyedCosts

SPACE = Space.parse({"student": {"width": {"low": 1, "high": 1000}}, "train": {"lr": {"low": 0.1, "high": 1.0}}})


def widths(pool):
    return [one["width"] for one in pool]


def narrow(student):
    return student["width"] <= 400


def test_the_pool_takes_its_share_of_the_time_within_limits() -> None:
    assert pool_size(7, 10.0) == 7
    assert pool_size("auto", None) == MAX_POOL
    assert pool_size("auto", 60.0) == MIN_POOL
    assert pool_size("auto", 1000.0) == 80
    assert pool_size("auto", 1e6) == MAX_POOL


def test_a_pool_is_of_different_students_and_the_same_again() -> None:
    pool = widths(draw_pool(SPACE, 50, seed=3))
    assert len(set(pool)) == len(pool) == 50
    assert widths(draw_pool(SPACE, 50, seed=3)) == pool
    assert widths(draw_pool(SPACE, 60, seed=3))[:50] == pool
    assert widths(draw_pool(SPACE, 50, seed=4)) != pool


def test_a_small_space_is_taken_whole() -> None:
    small = Space.parse({"student": {"width": [3, 1, 2]}})
    assert sorted(widths(draw_pool(small, 10, seed=0))) == [1, 2, 3]
    assert widths(draw_pool(small, 10, seed=0, fits=lambda s: s["width"] == 2)) == [2]
    assert len(draw_pool(small, 10, seed=0, fits=lambda s: s["width"] == 2, others=2)) == 2


def test_those_within_the_bounds_come_first_and_others_only_to_make_up_the_number() -> None:
    assert all(map(narrow, draw_pool(SPACE, 30, seed=0, fits=narrow)))
    few = draw_pool(SPACE, 10, seed=0, fits=lambda s: s["width"] <= 50, others=8)
    assert len(few) == 8
    assert 0 < sum(s["width"] <= 50 for s in few) < 8
    assert len(draw_pool(SPACE, 4, seed=0, fits=lambda s: s["width"] <= 50, others=12)) == 4  # no more than asked for


def test_where_none_is_within_them_the_draws_are_surveyed_for_the_message() -> None:
    looked: list[int] = []
    pool = draw_pool(SPACE, 10, seed=0, fits=lambda s: looked.append(1) is not None)
    assert len(looked) == LOOKS * 10
    assert pool == draw_pool(SPACE, 10, seed=0)


@pytest.mark.parametrize("bound", ["params <= 9000", "macs <= 300000"])
def test_students_within_countable_bounds_are_separated_from_others(bound) -> None:
    study = ad.Study.create(data="digits", space="digits", objectives=["accuracy", "params"], constraints=[bound])
    shape = {"image_size": 8, "channels": 1}
    watch = Watch()
    fits = prepare._fits(study, shape, 10, CostMemory(None), watch)
    assert fits is not None
    metric, limit = bound.split(" <= ")
    drawn = draw_pool(study.space, 12, seed=0)
    costs = [
        known_costs(students.build_student(one, **shape, num_classes=10), **shape, metrics=[metric])[metric]
        for one in drawn
    ]
    assert [fits(one) for one in drawn] == [cost <= float(limit) for cost in costs]
    assert {fits(one) for one in drawn} == {True, False}
    assert not fits({"family": "vit", "patch": 16})  # cannot be built
    watch.until(lambda: True)
    assert not any(map(fits, drawn))  # who wants to stop is not kept waiting


def test_a_look_that_is_stopped_ends_without_an_error_about_the_bounds(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path))
    monkeypatch.setattr(prepare, "_teacher", lambda *args, **keys: TeacherSpec("x"))
    keys = {"data": "digits", "space": "digits", "objectives": ["accuracy", "params"]}
    remembered = ad.Study.create(**keys, budget="1trials", survey=30)
    with remembered.running():
        prepare.prepare(remembered, Watch())
    study = ad.Study.create(**keys, budget="1trials", survey=30, constraints=["params <= 400"])
    watch = Watch()
    watch.until(lambda: True)
    with study.running():
        prepare.prepare(study, watch)


def test_counts_that_are_made_during_a_search_are_remembered_by_the_next(tmp_path, monkeypatch) -> None:
    student = {"family": "resnet", "width": 4, "depth": 1, "stages": 2}
    shape = {"image_size": 8, "channels": 1}

    def count():
        memory = CostMemory(tmp_path)
        return UnsurveyedCosts(["params"], shape, 10, target=LatencyTarget(), memory=memory)(student)

    first = count()
    monkeypatch.setattr(students, "build_student", None)  # nothing is built again
    assert count() == first


def test_bounds_on_latency_and_accuracy_do_not_restrict_the_pool() -> None:
    study = ad.Study.create(data="digits", space="digits", constraints=["latency_ms <= 1", "accuracy >= 0.5"])
    assert prepare._fits(study, {"image_size": 8, "channels": 1}, 10, CostMemory(None), Watch()) is None
