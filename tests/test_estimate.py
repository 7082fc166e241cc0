"""What a search will roughly cost, before it starts."""

import contextlib

import pytest

from autodistill.config import StudyConfig
from autodistill.engines import estimate as module
from autodistill.engines.estimate import estimate
from autodistill.engines.pool import MIN_POOL, SURVEY_SECONDS
from autodistill.search.opening import study_parts

STEP = 0.01


@pytest.fixture(autouse=True)
def _steps(monkeypatch):
    """Every step takes a hundredth of a second."""
    monkeypatch.setattr(module, "_time_steps", lambda *args: STEP)


def forecast(**keys):
    config = StudyConfig.model_validate(
        {"name": "x", "data": {"source": "digits"}, "space": "digits", "epochs": 9, **keys}
    )
    parts = study_parts(config)
    return estimate(config, parts["space"], parts["rungs"])


def test_survey_and_teacher_come_out_of_the_time_before_trials_do() -> None:
    found = forecast(budget="120s", workers=2, teacher={"source": "auto", "options": {"epochs": 10}})
    steps = found.train_images // 64
    epoch = STEP * (steps + found.val_images / 64 / 3)
    assert found.epoch_seconds == pytest.approx((epoch, epoch))
    assert found.survey_seconds == MIN_POOL * SURVEY_SECONDS
    assert found.teacher_seconds == pytest.approx(10 * STEP * steps)
    left = 120.0 - found.survey_seconds - found.teacher_seconds
    assert found.full_trainings == (int(2 * left / (9 * epoch)),) * 2
    assert found.trials is not None
    assert found.trials[0] == int(2 * left / (found.epochs_per_trial * epoch))


def test_a_teacher_that_exists_takes_no_time() -> None:
    assert forecast(budget="120s", teacher={"source": "somewhere"}).teacher_seconds == 0.0


@pytest.mark.parametrize("keys", [{"survey": "off"}, {"objectives": "accuracy,agreement"}])
def test_without_a_survey_it_takes_no_time(keys) -> None:
    found = forecast(budget="120s", teacher={"source": "somewhere"}, **keys)
    assert found.survey_seconds == 0.0
    assert not any("before the first trial" in line for line in found.lines())


def test_device_time_buys_fewer_trainings_that_take_several_devices(monkeypatch) -> None:
    monkeypatch.setattr("autodistill.engines.slots._gpu_count", lambda: 2)
    monkeypatch.setattr(module, "_threads", lambda count: contextlib.nullcontext())
    keys = {"budget": "1gpu-hours", "teacher": {"source": "somewhere"}, "survey": "off"}
    found = [forecast(**keys, **more) for more in ({}, {"devices_per_trial": 2}, {"slots_per_gpu": 2})]
    alone = 3600 / (9 * found[0].epoch_seconds[0])
    assert [f.full_trainings for f in found] == [(int(n * alone),) * 2 for n in (1, 0.5, 2)]


def test_where_not_one_full_training_fits_it_says_so() -> None:
    found = forecast(budget="25s")
    assert found.full_trainings == (0, 0)
    assert "only full trainings are on the front" in found.lines()[-1]
    assert not any("only full" in line for line in forecast(budget="5m").lines())


def test_without_a_budget_nothing_is_said_of_trials() -> None:
    found = forecast(budget=None)
    assert (found.trials, found.full_trainings) == (None, None)
    assert "trials" not in found.lines()[-1]
