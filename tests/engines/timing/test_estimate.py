"""What a search will roughly cost, before it starts."""

import pytest

from autodistill.config.study_file import StudyConfig
from autodistill.engines.setup.study_setup import study_parts
from autodistill.engines.timing import training_times as module
from autodistill.engines.timing.estimate import CONTINUE_SHARE, SPREAD, estimate
from autodistill.engines.timing.survey_pool import MIN_POOL, SURVEY_SHARE
from autodistill.engines.timing.timing import FORWARD, SMALL_STEP, STEP, Timing

TIME = 0.01
IMAGE = 0.002


@pytest.fixture(autouse=True)
def _steps(monkeypatch, tmp_path):
    """Every step takes a hundredth of a second, the evaluation of an image nothing, and no cache has any view."""
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "cache"))

    def timed(job, memory, **settings):
        row = {STEP: TIME, SMALL_STEP: TIME, FORWARD: 0.0}
        return Timing(dict.fromkeys(range(len(job.students)), row), IMAGE if job.teacher else 0.0, 0.3, 0.0)

    monkeypatch.setattr(module, "timed", timed)


def forecast(**keys):
    config = StudyConfig.model_validate(
        {"name": "x", "data": {"source": "digits"}, "space": "digits", "epochs": 9, "survey": "off", **keys}
    )
    parts = study_parts(config)
    return estimate(config, parts["space"], parts["rungs"])


def test_survey_and_teacher_come_out_of_the_time_before_trials_do() -> None:
    teacher = {"source": "auto", "options": {"epochs": 10}}
    found = forecast(budget="120s", workers=2, teacher=teacher, survey="auto")
    steps = found.train_images // 64
    epoch = TIME * steps
    assert found.epoch_seconds == pytest.approx((epoch, epoch))
    assert found.survey_seconds == pytest.approx(min(MIN_POOL * 0.3, SURVEY_SHARE * 120))
    assert found.teacher_seconds == pytest.approx(10 * TIME * steps)
    left = 120.0 - found.survey_seconds - found.teacher_seconds
    each = 9 * epoch + 0.3
    assert found.full_trainings == (int(2 * left / each / SPREAD), int(2 * left / each * SPREAD))
    mean = 1 + 2 * CONTINUE_SHARE + 6 * CONTINUE_SHARE**2
    assert found.epochs_per_trial == pytest.approx(mean)
    assert found.trials == (
        round(2 * left / (mean * epoch + 0.3) / SPREAD),
        round(2 * left / (mean * epoch + 0.3) * SPREAD),
    )


def test_a_survey_takes_its_share_of_the_time_at_most() -> None:
    assert forecast(budget="30s", survey="auto", teacher={"source": "somewhere"}).survey_seconds == pytest.approx(
        SURVEY_SHARE * 30
    )


def test_the_views_of_a_teacher_are_counted_with_the_trials_and_its_check_before_them() -> None:
    found = forecast(budget="600s", workers=1, teacher={"source": "somewhere"})
    assert found.view_seconds == pytest.approx(IMAGE * found.train_images)
    assert found.preflight_seconds == pytest.approx(IMAGE * found.val_images)
    assert found.teacher_seconds == 0.0
    assert found.cold_seconds >= 9 * found.view_seconds
    assert any("per view of all images" in line for line in found.lines())
    free = forecast(budget="600s", workers=1, teacher={"source": "auto"})
    assert found.full_trainings[1] < free.full_trainings[1]


@pytest.mark.parametrize("keys", [{"survey": "off"}, {"survey": "auto", "objectives": "accuracy,agreement"}])
def test_without_a_survey_it_takes_no_time(keys) -> None:
    found = forecast(budget="120s", teacher={"source": "somewhere"}, **keys)
    assert found.survey_seconds == 0.0
    assert not any("survey" in line for line in found.lines())


def test_device_time_buys_fewer_trainings_that_take_several_devices(monkeypatch) -> None:
    monkeypatch.setattr("autodistill.engines.driving.slots._gpu_count", lambda: 2)
    keys = {"budget": "1gpu-hours"}
    found = [forecast(**keys, **more) for more in ({}, {"devices_per_trial": 2}, {"slots_per_gpu": 2})]
    alone = 3600 / (9 * found[0].epoch_seconds[0] + 0.3)
    for one, share in zip(found, (1, 0.5, 2), strict=True):
        assert one.full_trainings == (int(share * alone / SPREAD), int(share * alone * SPREAD))


def test_where_not_one_full_training_fits_it_says_so() -> None:
    found = forecast(budget="2s")
    assert found.full_trainings == (0, 0)
    assert "only full trainings are on the front" in found.lines()[-1]
    assert not any("only full" in line for line in forecast(budget="5m").lines())


def test_without_a_budget_nothing_is_said_of_trials() -> None:
    found = forecast(budget=None)
    assert (found.trials, found.full_trainings) == (None, None)
    assert "trials," not in found.lines()[-1]
