"""How long a full training is where the user names no epochs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autodistill.config.study_file import StudyConfig
from autodistill.core.budget import Budget
from autodistill.engines.setup.study_setup import build_study, study_parts
from autodistill.engines.timing import top_rung
from autodistill.engines.timing.training_times import SearchTimes

TIMES = SearchTimes(
    train_images=2000,
    val_images=500,
    image_size=96,
    classes=10,
    candidates=None,
    epochs=(2.0, 4.0),
    report=0.0,
    trial=0.0,
    view=0.0,
    views=((0.0, 1.0), (0.0, 50.0), (0.0, 50.0)),
    always=False,
    survey=0.0,
    teaching=0.0,
    preflight=0.0,
    boot=0.0,
    workers=1,
    devices=1.0,
)


def config(**keys: object) -> StudyConfig:
    return StudyConfig.load({"data": "digits", "space": "digits", "workers": 1, **keys})


def choose(monkeypatch: pytest.MonkeyPatch, times: SearchTimes = TIMES, **keys: object) -> top_rung.Length:
    monkeypatch.setattr("autodistill.engines.timing.training_times.measure_times", lambda *args, **settings: times)
    asked = config(**keys)
    return top_rung.choose_length(asked, study_parts(asked)["space"])


def test_full_trainings_are_counted_with_what_comes_before_and_what_goes_beside() -> None:
    budget = Budget(seconds=1000.0)
    assert TIMES.count(budget, 10.0, 1.0) == pytest.approx(1000 / 30)  # ten epochs of 3 s
    before = replace(TIMES, survey=100.0, teaching=50.0, preflight=30.0, boot=20.0, workers=2)
    assert before.count(budget, 10.0, 1.0) == pytest.approx(2 * 800 / 30)
    beside = replace(TIMES, report=2.0, trial=1.0)
    assert beside.count(budget, 10.0, 3.0) == pytest.approx(1000 / 37)
    assert TIMES.count(Budget(trials=7), 10.0, 1.0) == 7
    assert TIMES.count(Budget(), 10.0, 1.0) is None


def test_views_of_the_teacher_are_paid_for_once_and_not_where_a_cache_has_them() -> None:
    asked = replace(TIMES, view=10.0)
    assert asked.cold(10.0, 100.0) == 10.0 * (1 + 10 + 10)
    assert asked.cold(10.0, 1.0) == 10.0 * 10  # one trial sees one augmentation
    known = replace(asked, views=((1.0, 1.0), (4.0, 50.0), (50.0, 50.0)))
    assert known.cold(10.0, 100.0) == 10.0 * 6
    count = asked.count(Budget(seconds=1000.0), 10.0, 1.0)
    assert count == pytest.approx((1000 - 210) / 30)
    assert replace(asked, always=True).count(Budget(seconds=1000.0), 10.0, 1.0) == pytest.approx(1000 / 130)


@pytest.mark.parametrize(
    ("budget", "epochs"), [("5m", 6), ("10m", 15), ("14m", 21), ("20m", 30), ("2h", 30), ("1m", 4)]
)
def test_as_many_epochs_as_let_twenty_full_trainings_fit(
    monkeypatch: pytest.MonkeyPatch, budget: str, epochs: int
) -> None:
    found = choose(monkeypatch, budget=budget)
    assert found.config.epochs == epochs
    seconds = Budget.parse(budget).seconds or 0.0
    if 4 < epochs < 30:
        count = seconds / (2 * epochs)  # of two timed students the quicker one
        assert count >= 20
        said = f"{epochs} epochs: about {count:.0f} full trainings of the faster half of the students fit into {budget}"
        assert found.message.startswith(f"{said}; --epochs sets another number")


def test_too_many_epochs_for_the_budget_are_reported_at_the_start_with_numbers_that_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = choose(monkeypatch, epochs=100, budget="4m").message
    assert said.startswith("warning: no full training of 100 epochs of the mean student fits into 4m")
    assert "--budget 25m, or about --epochs 20" in said
    assert choose(monkeypatch, epochs=100, budget="20m").message == ""
    assert choose(monkeypatch, epochs=100, budget="10m").message.startswith(
        "warning: only about 2 full trainings of 100"
    )


def test_a_budget_of_epochs_needs_no_timing_and_one_of_trials_changes_nothing() -> None:
    space = study_parts(config())["space"]
    assert top_rung.choose_length(config(budget="180epochs"), space).config.epochs == 9
    assert top_rung.choose_length(config(budget="40trials"), space).config.epochs == 30
    assert top_rung.choose_length(config(), space).config.epochs == 30


def test_a_study_keeps_the_epochs_that_were_chosen_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    folder = tmp_path / "study"
    monkeypatch.setattr("autodistill.engines.timing.training_times.measure_times", lambda *args, **settings: TIMES)
    study = build_study(config(budget="10m"), folder)
    assert (study.config.epochs, study.rungs.levels) == (15, (5, 15))
    assert any(note.startswith("15 epochs: about 20 full trainings") for note in study.notes)
    assert StudyConfig.load(folder / "study.yaml").epochs == 15
    monkeypatch.setattr(
        "autodistill.engines.timing.training_times.measure_times", lambda *args, **settings: pytest.fail("timed again")
    )
    assert study.config.training == {"batch_size": 16}
    again = build_study(config(budget="8h"), folder)
    assert again.config.training == {"batch_size": 16}
    assert (again.config.epochs, again.rungs.levels) == (15, (5, 15))


@pytest.mark.parametrize(
    ("epochs", "images", "training", "levels"),
    [
        (12, 3_000, {"batch_size": 16}, [4, 12]),  # 187 steps at epoch 1 are too few
        (30, 3_000, {}, [10, 30]),  # 46 steps an epoch, 138 at epoch 3
        (30, 1_222, {}, [10, 30]),  # 190 steps at epoch 10, but a third of the training
        (4, 300, {}, [4]),  # neither: every trial goes to the top
        (12, 50_000, {}, None),  # 781 steps at epoch 1: as without it
    ],
)
def test_rungs_begin_after_enough_steps(epochs, images, training, levels) -> None:
    found = top_rung.with_rungs(config(epochs=epochs, training=training), images)
    assert found.rungs == ("auto" if levels is None else {"levels": levels})
    named = config(epochs=epochs, training=training, rungs={"eta": 4})
    assert top_rung.with_rungs(named, images) is named


def test_the_time_that_the_timing_took_is_part_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 107.5])
    monkeypatch.setattr(top_rung.time, "monotonic", lambda: next(times))
    monkeypatch.setattr("autodistill.engines.timing.training_times.measure_times", lambda *args, **settings: TIMES)
    length = top_rung.choose_length(config(budget="10m"), study_parts(config())["space"])
    assert length.seconds == 7.5
    monkeypatch.setattr("autodistill.engines.timing.top_rung.choose_length", lambda *args, **settings: length)
    assert build_study(config(budget="10m"), None).spent.seconds == 7.5


def test_a_slow_teacher_limits_the_views_that_trials_share(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = replace(TIMES, view=10.0)
    found = choose(monkeypatch, slow, budget="20m")
    views = int(0.08 * 1200 / (2 * 10.0))  # two random augmentations
    assert found.config.training["views"] == views == 4
    assert (
        "4 views of each image are used in turn, since the teacher takes 10s for one view of all images"
        in found.message
    )
    assert found.times is not None
    assert found.times.cold(30.0, 100.0) == 10.0 * (1 + 4 + 4)
    assert choose(monkeypatch, slow, budget="20m", training={"views": 9}).config.training["views"] == 9
    assert "views" not in choose(monkeypatch, TIMES, budget="20m").config.training  # its answers cost nothing
    assert "views" not in choose(monkeypatch, replace(slow, view=0.1), budget="20m").config.training  # more than epochs


def test_the_length_is_by_the_faster_half_of_the_students(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = replace(TIMES, epochs=(2.0, 4.0, 3.0, 60.0, 60.0, 60.0))
    assert wide.faster_half().epochs == (2.0, 3.0, 4.0)
    assert choose(monkeypatch, wide, budget="20m").config.epochs == 18  # 20 x 18 x 3 s


@pytest.mark.parametrize(
    ("images", "epoch", "batch"),
    [
        (3_000, 6.0, 16),  # 4 epochs of 46 steps: even batches of 16 leave it below 1,500
        (20_000, 6.0, 0),  # enough steps already
        (3_000, 0.6, 0),  # steps of 13 ms are mostly overhead
    ],
)
def test_few_images_and_epochs_take_small_batches(
    monkeypatch: pytest.MonkeyPatch, images: int, epoch: float, batch: int
) -> None:
    times = replace(TIMES, train_images=images, epochs=(epoch,) * 3)
    found = choose(monkeypatch, times, budget="6m")
    assert found.config.training.get("batch_size", 0) == batch
    assert ("Batches of" in found.message) == bool(batch)
    assert choose(monkeypatch, times, budget="6m", training={"batch_size": 48}).config.training["batch_size"] == 48


def test_epochs_are_chosen_by_the_time_of_the_batch_that_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ((0.128, 0.064),) * 3  # 2 ms an image in batches of 64, twice that in batches of 16
    timed = tuple(({"family": "resnet", "width": width}, 4.0) for width in (4, 8, 16))
    times = replace(TIMES, epochs=(0.128 * 31,) * 3, timed=timed, steps=steps)
    assert times.with_batch(16).epochs == pytest.approx((0.064 * 125,) * 3)
    assert times.with_batch(32).epochs == pytest.approx((0.064 * (1 + 1 / 3) * 62,) * 3)
    assert [seconds for _, seconds in times.with_batch(16).timed] == pytest.approx([8.0] * 3)
    found = choose(monkeypatch, times, budget="20m")
    assert found.config.training["batch_size"] == 16
    assert found.config.epochs == 6  # 20 x 6 x 8 s; by the time of the large batch it would be 12
    assert found.times is not None
    assert found.times.mean == pytest.approx(8.0)


def test_a_short_budget_keeps_the_default_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ((0.128, 0.064),) * 3
    timed = tuple(({"family": "resnet", "width": width}, 4.0) for width in (4, 8, 16))
    times = replace(TIMES, epochs=(0.128 * 31,) * 3, timed=timed, steps=steps)
    found = choose(monkeypatch, times, budget="3m")  # 5 trainings of 4 epochs in batches of 16, 11 in batches of 64
    assert "batch_size" not in found.config.training


def test_measured_times_are_passed_to_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = tuple(({"family": "resnet", "width": width}, 1.0 * width) for width in (4, 8, 16))
    monkeypatch.setattr(
        "autodistill.engines.timing.training_times.measure_times", lambda *args, **settings: replace(TIMES, timed=timed)
    )
    study = build_study(config(budget="10m"), None)
    rows = [(student, {"params": 100.0 * seconds, "latency_ms": seconds}) for student, seconds in timed]
    with study.running():
        study.set_known_costs(rows)
        epoch_time = study._scheduler.epoch_time
        assert epoch_time.predict({"params": 800.0, "latency_ms": 8.0}, "resnet") == pytest.approx(8.0, rel=0.1)
