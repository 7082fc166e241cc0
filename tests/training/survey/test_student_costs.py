"""Costs of the students of trials: a noisy latency is marked, and measured again another time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from toys import make_study

from autodistill.commands.console.tables import print_trial
from autodistill.core.records import DataSpec, Report, Task, TeacherSpec
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.setup import prepare
from autodistill.search.study.study import Study
from autodistill.training.costs import latency_protocol as latency
from autodistill.training.costs.cost_memory import LATENCY, CostMemory
from autodistill.training.costs.latency_protocol import Latency
from autodistill.training.data import datasets
from autodistill.training.runtime import measurement_lock
from autodistill.training.students import build as students
from autodistill.training.survey import surveyor
from autodistill.training.survey.student_costs import StudentCosts

DATA = DataSpec("digits", train_size=64)
STUDENT = {"family": "resnet", "width": 4, "depth": 1}
TASK = Task(DATA, TeacherSpec(), "nowhere", (1,), ("params", LATENCY))
SETTLED = Latency(1.0, 1.0, 1.0, 0.0, False, 10)
NOISY = replace(SETTLED, p50_ms=99.0, noisy=True)


@pytest.fixture
def model() -> nn.Module:
    return students.build_student(STUDENT, image_size=8, channels=1, num_classes=10)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Latency]:
    """Results of the next measurements; the last one is repeated."""
    found = [SETTLED]
    monkeypatch.setattr(
        latency, "measure_latency", lambda *args, **options: found.pop(0) if len(found) > 1 else found[0]
    )
    return found


def costs(folder: Path) -> StudentCosts:
    return StudentCosts(TASK, datasets.load_images(DATA), CostMemory(folder))


def test_a_settled_latency_is_remembered(tmp_path: Path, model: nn.Module, measured: list[Latency]) -> None:
    first = costs(tmp_path).of(STUDENT, model)
    measured[:] = [NOISY]
    assert costs(tmp_path).of(STUDENT, model) == first
    assert not first.noisy


def test_two_workers_that_meet_the_same_student_keep_one_latency(
    tmp_path: Path, model: nn.Module, measured: list[Latency]
) -> None:
    first, second = costs(tmp_path), costs(tmp_path)  # both began before either had measured
    measured[:] = [SETTLED, replace(SETTLED, p50_ms=2.0)]
    assert first.of(STUDENT, model) == second.of(STUDENT, model)
    assert second.of(STUDENT, model).costs[LATENCY] == 1.0


def test_a_worker_that_waits_for_the_measurement_lock_uses_a_latency_measured_meanwhile(
    tmp_path: Path, model: nn.Module, measured: list[Latency], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = costs(tmp_path), costs(tmp_path)
    measured[:] = [SETTLED, replace(SETTLED, p50_ms=2.0)]
    quiet = measurement_lock.exclusive

    @contextlib.contextmanager
    def after_the_other(*device: str, **how: Any) -> Iterator[bool]:
        monkeypatch.setattr(measurement_lock, "exclusive", quiet)
        first.of(STUDENT, model)
        with quiet(*device, **how) as alone:
            yield alone

    monkeypatch.setattr(measurement_lock, "exclusive", after_the_other)
    assert second.of(STUDENT, model).costs[LATENCY] == 1.0


def test_a_noisy_latency_is_marked_and_measured_again(
    tmp_path: Path, model: nn.Module, measured: list[Latency]
) -> None:
    measured[:] = [NOISY, SETTLED]
    first = costs(tmp_path).of(STUDENT, model)
    assert (first.costs[LATENCY], first.noisy) == (99.0, True)
    (row,) = json.loads((tmp_path / "costs.json").read_text()).values()
    assert row == {"params": first.costs["params"]}
    second = costs(tmp_path).of(STUDENT, model)
    assert (second.costs[LATENCY], second.noisy) == (1.0, False)


def test_a_latency_beside_a_training_that_did_not_step_aside_is_noisy(
    tmp_path: Path, model: nn.Module, measured: list[Latency], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def crowded(*device: str, **how: Any) -> Iterator[bool]:
        yield False

    monkeypatch.setattr(measurement_lock, "exclusive", crowded)
    assert costs(tmp_path).of(STUDENT, model).noisy
    monkeypatch.undo()
    monkeypatch.setattr(latency, "measure_latency", lambda *args, **options: SETTLED)
    assert not costs(tmp_path).of(STUDENT, model).noisy


def test_noisy_rows_of_an_earlier_survey_are_not_remembered_when_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "cache"))
    found = [NOISY]

    def timed(runs: list[Any], **how: Any) -> list[Latency]:
        return [found[0] for _ in runs]

    monkeypatch.setattr(surveyor, "measure_runs", timed)
    monkeypatch.setattr(prepare, "_teacher", lambda *args, **how: TeacherSpec("x"))
    space = {"student": {"family": "resnet", "width": [4, 6]}}
    folder = tmp_path / "study"

    def latencies(study: Study) -> list[tuple[float, bool]]:
        with study.running():
            prepare.prepare(study, Watch())
        rows = json.loads((folder / "survey.json").read_text())["students"]
        return [(row["costs"][LATENCY], row["noisy"]) for row in rows]

    objectives = ["accuracy", "params", LATENCY]
    study = Study.create(data="digits", space=space, objectives=objectives, directory=folder, budget="1trials")
    assert latencies(study) == [(99.0, True)] * 2
    found[0] = SETTLED
    assert latencies(Study.open(folder)) == [(1.0, False)] * 2


def test_a_trial_says_that_its_latency_is_noisy_until_it_settles(capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study()
    with study.running():
        one = study.ask()
        assert one is not None
        values = {"params": 1.0, LATENCY: 99.0}
        study.report(one, Report(0, values, noisy=True))
        assert study.trials()[0].noisy
        print_trial(study.trials()[0], study.objectives, None)
        assert "latency_ms 99 (noisy)" in " ".join(capsys.readouterr().out.split())
        study.report(one, Report(1, {**values, LATENCY: 1.0, "accuracy": 0.5}, 1.0))
        assert not study.trials()[0].noisy
        study.close(one)
