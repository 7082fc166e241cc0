"""Variants: int8 forms of trained students with their own figures, on the front beside fp32."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import optuna
import pytest
import torch
from onnx import numpy_helper
from places import ROOT
from toys import LEVELS, costs, evaluate, make_study

import autodistill as ad
from autodistill.config.study_file import StudyConfig
from autodistill.core.budget import Budget
from autodistill.core.errors import ConfigError, InfeasibleError
from autodistill.core.records import (
    Candidate,
    Constraint,
    DataSpec,
    LatencyTarget,
    Report,
    State,
    Task,
    TeacherSpec,
    TrialRecord,
    WorkerContext,
)
from autodistill.engines.monitor.watch import Watch
from autodistill.search.objectives.objectives import objectives
from autodistill.training.costs.cost_memory import CostMemory
from autodistill.training.costs.latency_protocol import Latency
from autodistill.training.data import datasets
from autodistill.training.deployed.onnx_files import describe_onnx
from autodistill.training.students import build as students
from autodistill.training.students.student_input import StudentInput
from autodistill.training.survey import student_costs
from autodistill.training.survey.student_costs import StudentCosts
from autodistill.training.trials import variants
from autodistill.training.trials.evaluate import evaluator
from autodistill.training.trials.trial_files import trial_folder
from autodistill.training.trials.variants import VariantWork, calibration_images

TINY = {"family": "resnet", "width": 4}
COMPLETE = optuna.trial.TrialState.COMPLETE


def evaluate_twice(candidate: Candidate) -> Iterator[Report]:
    """As the toy, with an int8 form that is half as slow and a little worse; width 8 has none."""
    for report in evaluate(candidate):
        if report.rung == len(LEVELS):
            values = {**report.values, "latency_ms": report.values["latency_ms"] / 2}
            values["accuracy"] -= 0.01
            int8: dict[str, Any] = {"values": values}
            if candidate.student["width"] == 8:
                int8 = {"reason": "no kernel"}
            report = replace(report, variants={"int8": int8})
        yield report


def run_toy(folder: Path | None = None, **options: Any) -> Any:
    study = make_study(folder, **options)
    with study.running(Budget.parse("8trials")):
        while (candidate := study.ask()) is not None:
            for report in evaluate_twice(candidate):
                if study.report(candidate, report) is ad.Decision.STOP:
                    break
            study.close(candidate)
    return study


def test_a_front_holds_both_forms_and_optuna_keeps_fp32(tmp_path: Path) -> None:
    study = run_toy(tmp_path / "study")
    complete = [t for t in study.trials() if t.state is State.COMPLETE]
    front = study.front()
    both = {(t.number, t.variant): t.values for t in (*front.trials, *front.others)}
    for trial in complete:
        width = trial.student["width"]
        assert both[trial.number, "fp32"] == trial.values
        assert trial.values["latency_ms"] == costs(trial.student)["latency_ms"]
        if width == 8:
            assert trial.variants["int8"] == {"reason": "no kernel"}
            assert (trial.number, "int8") not in both
        else:
            assert both[trial.number, "int8"]["latency_ms"] == pytest.approx(width / 20)
    assert {t.variant for t in front.trials} == {"fp32", "int8"}
    plain = front.trained()
    assert {t.variant for t in (*plain.trials, *plain.others)} == {"fp32"}
    assert sorted(t.number for t in (*plain.trials, *plain.others)) == [t.number for t in complete]
    stored = {t.number: t.values[2] for t in study.optuna.get_trials(states=[COMPLETE])}
    assert stored == {t.number: t.values["latency_ms"] for t in complete}


def test_progress_counts_students_and_not_their_forms() -> None:
    study, seen = run_toy(), []
    Watch(seen.append, study).update()
    members = study.front().trials
    assert seen[0].front_size == len({t.number for t in members}) < len(members)


def test_the_files_of_a_front_name_the_form_of_each_row(tmp_path: Path) -> None:
    front = run_toy(tmp_path / "study").front()
    front.save(tmp_path)
    found = json.loads((tmp_path / "front.json").read_text())["trials"]
    rows = list(csv.DictReader((tmp_path / "front.csv").read_text().splitlines()))
    assert [t["variant"] for t in found] == [row["variant"] for row in rows] == [t.variant for t in front.trials]


def test_a_report_tells_the_forms_apart_and_counts_trials_once(tmp_path: Path) -> None:
    from autodistill.core.wording import counted
    from autodistill.delivery.report.answers import answers_of
    from autodistill.delivery.report.tables import front_table
    from autodistill.delivery.report.write import write_report
    from autodistill.search.analysis.trajectory import trajectory

    study = run_toy(tmp_path / "study")
    front, trials = study.front(), study.trials()
    table = front_table(front, trials, front.knee())
    assert table.columns[:2] == ("trial", "variant")
    assert [row[1] for row in table.rows] == [t.variant for t in front.trials]
    assert sum("knee" in row[0] for row in table.rows) == 1
    steps = [step.number for step in trajectory(front)]
    assert sorted(steps) == sorted({t.number for t in (*front.trials, *front.others)})
    named = {answer.name for answer in answers_of(front, trials, None).candidates}
    assert named == {t.called for t in front.trials}
    page = write_report(study, tmp_path / "r.html").path.read_text()
    complete = sum(t.state is State.COMPLETE for t in trials)
    forms = len(front.trials) + len(front.others)
    assert f"The best of {counted(complete, 'COMPLETE trial')} ({forms} forms) is selected" in page
    assert f"the best of {counted(complete, 'COMPLETE trial')} ({forms} forms) was selected" in page


def test_of_two_equally_accurate_forms_the_cheaper_one_is_the_answer() -> None:
    from autodistill.delivery.report.answers import answers_of

    def evaluate_equal(candidate: Candidate) -> Iterator[Report]:
        for report in evaluate(candidate):
            slower = {"latency_ms": 2 * report.values["latency_ms"], "params": report.values["params"] / 2}
            int8 = {"values": {**report.values, **slower}}
            yield replace(report, variants={"int8": int8} if report.rung == len(LEVELS) else {})

    study = make_study()
    with study.running(Budget.parse("1trials")):
        candidate = study.ask()
        for report in evaluate_equal(candidate):
            study.report(candidate, report)
        study.close(candidate)
    front = study.front()
    assert [t.called for t in front.trials] == ["0 (int8)", "0"]
    best = answers_of(front, study.trials(), None).best
    assert best is not None
    assert (best.name, front.pick("accuracy >= 0").called) == ("0", "0")


def test_the_gain_of_distillation_is_computed_between_equal_forms() -> None:
    from autodistill.search.results.gain import gain_over_undistilled

    def record(loss: str, plain: float, int8: float) -> TrialRecord:
        forms = {"int8": {"values": {"accuracy": int8}, "feasible": True}}
        values = {"accuracy": plain}
        return TrialRecord(0, State.COMPLETE, values, {"width": 4}, {"loss": loss}, {}, 0, variants=forms)

    plain, taught = record("none", 0.80, 0.70), record("kd", 0.85, 0.79)
    int8 = replace(taught, values={"accuracy": 0.79}, variant="int8")
    accuracy = objectives.get("accuracy")
    assert gain_over_undistilled(taught, [plain, taught], accuracy) == pytest.approx(0.05)
    assert gain_over_undistilled(int8, [plain, taught], accuracy) == pytest.approx(0.09)


def test_a_form_that_breaks_a_constraint_is_stored_and_not_on_the_front() -> None:
    study = run_toy(constraints=(Constraint("accuracy", ">=", 0.80),))
    for trial in study.trials():
        facts = trial.variants.get("int8", {})
        if "values" in facts:
            assert facts["feasible"] == (facts["values"]["accuracy"] >= 0.80)
    assert all(t.values["accuracy"] >= 0.80 for t in study.front().trials)


def test_a_form_without_an_objective_says_which() -> None:
    study = make_study()
    with study.running(Budget.parse("1trials")):
        candidate = study.ask()
        for report in evaluate(candidate):
            study.report(candidate, replace(report, variants={"int8": {"values": {"accuracy": 0.5}}}))
        study.close(candidate)
    assert study.trials()[0].variants["int8"] == {"reason": "it has no params, latency_ms"}


def test_the_study_file_names_the_forms_and_int8_is_compared_on_one_runtime() -> None:
    assert StudyConfig.load({"data": "digits"}).variants == ("fp32",)
    config = StudyConfig.load({"data": "digits"}, {"variants": "fp32,int8"})
    assert config.variants == ("fp32", "int8")
    assert config.latency == LatencyTarget("onnxruntime")
    assert StudyConfig.load(config.resolved()) == config
    for bad, said in (
        ({"variants": ["int8"]}, "including fp32"),
        ({"variants": ["fp32", "int4"]}, "int8"),
        ({"variants": ["fp32", "int8"], "latency": {"runtime": "torch"}}, "fp32 must be measured with it too"),
    ):
        with pytest.raises(ConfigError, match=said):
            StudyConfig.load({"data": "digits", **bad})


@pytest.fixture(scope="module")
def digits() -> datasets.ImageData:
    return datasets.load_images(DataSpec("digits", train_size=300))


def test_calibration_images_are_training_images_as_students_take_them(digits: datasets.ImageData) -> None:
    images = calibration_images(digits, seen(digits), 20)
    assert images.shape == (20, 1, 8, 8)
    assert images.dtype == np.float32
    everything = seen(digits).of_images(digits.train.images)
    assert everything.mean() == pytest.approx(0, abs=0.02)
    assert everything.std() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(images[0], everything[0])
    np.testing.assert_array_equal(images[-1], everything[-1])


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUTODISTILL_LEASE", str(tmp_path / "lease"))
    return Task(
        DataSpec("digits", train_size=300), TeacherSpec("timm"), str(tmp_path), (1, 3),
        ("accuracy", "onnx_bytes", "latency_ms"), LatencyTarget("onnxruntime"), variants=("fp32", "int8"),
    )  # fmt: skip


def test_the_int8_form_is_measured_from_its_file_at_the_top_rung_alone(task: Task, monkeypatch) -> None:
    from autodistill.training.trials.evaluate import WorkerState

    stand_in = type("Teacher", (), {"fingerprint": "none", "by_id": False})
    monkeypatch.setattr(WorkerState, "teacher_on_validation", lambda self, teacher: None)
    monkeypatch.setattr(WorkerState, "teacher_named", lambda self, name: stand_in)
    student = {"family": "resnet", "width": 16}
    candidate = Candidate(3, student, {"loss": "none"}, {"lr": 0.01, "ema": 0.0}, seed=1)
    reports = list(evaluator(task, WorkerContext())(candidate))
    assert [dict(report.variants) for report in reports[:-1]] == [{}, {}]
    values = reports[-1].variants["int8"]["values"]
    path = trial_folder(task.directory, 3) / "variants" / "int8.onnx"
    assert values["onnx_bytes"] == path.stat().st_size == describe_onnx(path).bytes
    assert values["onnx_bytes"] < 0.5 * reports[-1].values["onnx_bytes"]
    assert values["accuracy"] == pytest.approx(reports[-1].values["accuracy"], abs=0.05)
    assert 0 < values["latency_ms"] < 100
    again = list(evaluator(task, WorkerContext())(replace(candidate, start_rung=1)))
    assert again == reports[-1:]


def seen(data: datasets.ImageData) -> StudentInput:
    return StudentInput(data.image_size, data.mean, data.std)


def work_of(data: datasets.ImageData, folder: Path, target: LatencyTarget) -> VariantWork:
    task = Task(DataSpec("digits"), TeacherSpec(), str(folder), (1,), ("accuracy", "latency_ms"), target)
    return VariantWork(data, seen(data), ("fp32", "int8"), StudentCosts(task, data, CostMemory(folder / "memory")))


def network(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = students.build_student(TINY, image_size=8, channels=1, num_classes=10).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # as if trained: activations that are not centred
            parameter.add_(torch.randn_like(parameter))
    return model


def test_int8_forms_of_one_architecture_have_one_size_and_one_latency(digits, tmp_path: Path, monkeypatch) -> None:
    settled = Latency(1.0, 1.0, 1.0, 0.0, noisy=False, runs=10)
    found = [replace(settled, p50_ms=9.0, noisy=True), settled, replace(settled, p50_ms=5.0)]
    monkeypatch.setattr(student_costs, "timed", lambda runs, target: [found.pop(0)])
    monkeypatch.setenv("AUTODISTILL_LEASE", str(tmp_path / "lease"))
    workers = [work_of(digits, tmp_path, LatencyTarget("onnxruntime")) for _ in range(3)]  # all began before any ended
    zero_points, values, noisy = [], [], []
    for seed in range(6):
        folder = tmp_path / str(seed)
        forms = workers[seed % 3].of(TINY, network(seed), folder, {"bytes": 1.0, "latency_ms": 1.0})
        values.append(forms["int8"]["values"])
        noisy.append(forms["int8"].get("noisy", False))
        zero_points.append(large_zero_points(folder / "int8.onnx"))
    assert len(set(zero_points)) > 1  # which the quantizer itself writes as one byte more each
    assert len({one["bytes"] for one in values}) == 1
    assert [one["latency_ms"] for one in values] == [9.0, 1.0, 1.0, 1.0, 1.0, 1.0]  # what was noisy is not remembered
    assert noisy == [True, False, False, False, False, False]


def large_zero_points(path: Path) -> int:
    graph = onnx.load(str(path)).graph
    points = [numpy_helper.to_array(one) for one in graph.initializer if one.name.endswith("zero_point")]
    return sum(point.dtype == np.uint8 and point.size == 1 and point.item() >= 128 for point in points)


def test_a_student_that_cannot_be_quantized_keeps_the_reason(digits, tmp_path: Path, monkeypatch) -> None:
    def fails(*arguments: Any, **options: Any) -> Path:
        raise InfeasibleError("no form of it runs")

    monkeypatch.setattr(variants, "quantize_int8", fails)
    work = work_of(digits, tmp_path, LatencyTarget("onnxruntime"))
    assert work.of(TINY, network(), tmp_path, {"params": 1.0}) == {"int8": {"reason": "no form of it runs"}}


def test_a_table_of_latencies_has_no_latency_of_int8_forms(digits, tmp_path: Path) -> None:
    work = work_of(digits, tmp_path, LatencyTarget(table="board.csv"))
    found = work.of(TINY, network(), tmp_path, {"latency_ms": 1.0})
    assert "a latency table has no value for this form" in found["int8"]["reason"]


@pytest.mark.slow
def test_a_search_from_the_command_line_ends_with_both_forms(tmp_path: Path) -> None:
    code = "from torch import nn\n\n\ndef linear():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    (tmp_path / "linear_teacher.py").write_text(code)
    study = tmp_path / "study"
    (tmp_path / "study.yaml").write_text(
        "data: {source: digits, train_size: 300}\n"
        "teacher: {source: 'linear_teacher:linear', accept_weak: true}\n"
        "space: {student: {family: resnet, width: [8, 16]}}\n"
        "objectives: accuracy,onnx_bytes\nvariants: [fp32, int8]\nepochs: 2\nrungs: off\nbudget: 2trials\n"
    )
    paths = os.pathsep.join((str(ROOT), str(tmp_path)))
    own = {"PYTHONPATH": paths, "AUTODISTILL_CACHE": str(tmp_path / "cache"), "AUTODISTILL_LEASE": str(tmp_path)}

    def program(*arguments: object) -> str:
        line = [sys.executable, "-m", "autodistill", *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **own}, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "int8" in program("search", tmp_path / "study.yaml", "--dir", study)
    rows = list(csv.DictReader((study / "front.csv").read_text().splitlines()))
    assert "int8" in {row["variant"] for row in rows}
    for row in rows:
        if row["variant"] == "int8":
            path = trial_folder(study, int(row["number"])) / "variants" / "int8.onnx"
            assert float(row["onnx_bytes"]) == path.stat().st_size
    stored = {t.number: t.values for t in ad.Study.open(study).optuna.get_trials(states=[COMPLETE])}
    trials = json.loads(program("trials", study, "--json"))
    assert {t["number"]: list(t["values"].values()) for t in trials} == stored
    assert all("values" in t["variants"]["int8"] for t in trials)
    assert "variant int8" in program("show", 0, study)
