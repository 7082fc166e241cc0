"""A study of several labels per image, from the search to the files that ship: each means the labels that it shows."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.core.errors import TeacherError
from autodistill.core.records import DataSpec, TeacherSpec
from autodistill.delivery.export.write import export
from autodistill.training.data import datasets
from autodistill.training.teachers.load import check_teacher, load_teacher

SPACE = {
    "student": {"family": "resnet", "width": [4, 8], "depth": 1, "stages": 2},
    "distillation": {"loss": "kd", "temperature": 2, "alpha": 0.5},
    "train": {"lr": 0.02, "mixup": [0.0, 0.2], "class_weights": "balanced"},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> ad.Study:
    """Two students of colour scenes, each trained for three epochs, in two forms."""
    study = ad.Study.create(
        data={"source": "synthetic_scenes", "options": {"count": 320, "size": 16, "classes": 3, "noise": 0.02}},
        task="multilabel",
        teacher={
            "source": "auto",
            "accept_weak": True,
            "options": {"epochs": 3, "model": {"family": "resnet", "width": 8, "depth": 1, "stages": 2}},
        },
        space=SPACE,
        objectives=["average_precision", "params"],
        variants=["fp32", "int8"],
        epochs=3,
        rungs="off",
        survey="off",
        sampler="random",
        directory=tmp_path_factory.mktemp("studies") / "scenes",
    )
    ad.search(study, budget="2trials", workers=1, progress=False)
    return study


@pytest.fixture(scope="module")
def data(study) -> datasets.ImageData:
    return datasets.load_images(study.config.data, study.directory / "cache")


@pytest.fixture(scope="module")
def exported(study, tmp_path_factory):
    trial = next(trial for trial in study.trials() if trial.values)
    out = tmp_path_factory.mktemp("export") / "student"
    return export(study.directory, trial, out, formats="safetensors,onnx,onnx-int8", max_drop=1.0, latency=False)


def _logits(folder, images) -> np.ndarray:
    facts = json.loads((folder / "preprocess.json").read_text())
    mean, std = (np.array(facts[name], dtype=np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        return ad.load(folder)(torch.from_numpy((images.astype(np.float32) / 255 - mean) / std)).double().numpy()


def test_trials_report_the_measures_of_labels(study, data) -> None:
    done = [trial for trial in study.trials() if trial.values]
    assert len(done) == 2
    for trial in done:
        reported = trial.latest
        assert {"average_precision", "micro_f1", "macro_recall", "accuracy", "agreement"} <= set(reported)
        assert "balanced_accuracy" not in reported
        assert trial.values["average_precision"] > data.val.labels.mean()  # better than guessing
        assert "average_precision" in trial.variants["int8"]["values"]
    assert study.teacher_values()["average_precision"] > 0


def test_the_values_of_a_trial_are_those_of_scikit_learn(study, data, exported) -> None:
    trial = next(one for one in study.trials() if one.number == exported.trial)
    logits, labels = _logits(exported.folder, data.val.images), data.val.labels
    wanted = metrics.average_precision_score(labels, logits, average="macro")
    assert trial.values["average_precision"] == pytest.approx(wanted, abs=1e-4)
    assert trial.latest["accuracy"] == pytest.approx(metrics.accuracy_score(labels, logits > 0), abs=1e-9)


def test_each_threshold_is_as_good_as_any_on_the_validation_images(data, exported) -> None:
    spec = json.loads((exported.folder / "preprocess.json").read_text())
    assert spec["task"] == "multilabel"
    assert "sigmoid" in spec["output"]
    shares = 1 / (1 + np.exp(-_logits(exported.folder, data.val.images)))
    assert len(spec["thresholds"]) == 3
    for label, limit in enumerate(spec["thresholds"]):
        truth = data.val.labels[:, label]
        every = [metrics.f1_score(truth, shares[:, label] > cut) for cut in [0.0, 0.5, *shares[:, label]]]
        assert metrics.f1_score(truth, shares[:, label] > limit) == pytest.approx(max(every))


def test_every_file_passed_its_check_and_its_average_precision_is_known(exported) -> None:
    assert [one.state for one in exported.checked] == ["ok", "ok", "ok"]
    exact = [one.average_precision for one in exported.checked[:2]]
    assert exact[0] == pytest.approx(exact[1], abs=1e-6)
    assert all(0 < one.agreement <= 1 for one in exported.checked)


def test_predict_shows_the_labels_above_their_thresholds(data, exported, tmp_path) -> None:
    spec = json.loads((exported.folder / "preprocess.json").read_text())
    names = []
    for index in range(12):
        Image.fromarray(data.val.images[index].transpose(1, 2, 0)).save(tmp_path / f"{index}.png")
        names.append(str(tmp_path / f"{index}.png"))
    script = [sys.executable, str(exported.folder / "predict.py"), *names]
    run = subprocess.run([*script, "--json"], capture_output=True, text=True, check=True)
    shares = 1 / (1 + np.exp(-_logits(exported.folder, data.val.images[:12])))
    for row, found in zip(shares, json.loads(run.stdout), strict=True):
        above = {spec["classes"][k] for k in range(3) if row[k] > spec["thresholds"][k]}
        assert {one["name"] for one in found["classes"]} == above
        for one in found["classes"]:
            assert one["probability"] == pytest.approx(row[spec["classes"].index(one["name"])], abs=1e-4)
    everything = subprocess.run([*script, "--threshold", "0", "--json"], capture_output=True, text=True, check=True)
    assert all(len(one["classes"]) == 3 for one in json.loads(everything.stdout))
    nothing = subprocess.run([*script, "--threshold", "1"], capture_output=True, text=True, check=True)
    assert nothing.stdout.count("no label") == 12
    best = subprocess.run([*script, "--top", "1", "--json"], capture_output=True, text=True, check=True)
    assert [one["classes"][0]["name"] for one in json.loads(best.stdout)] == [
        spec["classes"][k] for k in shares.argmax(1)
    ]


def test_the_card_describes_labels_not_classes_that_exclude_each_other(exported) -> None:
    card = (exported.folder / "README.md").read_text()
    assert "Finds which of 3 labels colour images of 16 x 16 px have" in card
    assert "| label | threshold | precision | recall | F1 | images |" in card
    assert "multi-label-image-classification" in card
    assert "into 3 classes" not in card


def test_an_exported_student_teaches_its_own_task_only(data, exported, tmp_path) -> None:
    assert load_teacher(TeacherSpec(str(exported.folder)), data).multilabel
    shapes = datasets.load_images(DataSpec("synthetic", options={"count": 60, "size": 16, "classes": 3}), tmp_path)
    with pytest.raises(TeacherError, match="trained for task: multilabel"):
        load_teacher(TeacherSpec(str(exported.folder)), shapes)
    with pytest.raises(TeacherError, match="trained for task: multilabel"):
        check_teacher(TeacherSpec(str(exported.folder)), kind="multiclass")


def test_verify_measures_labels_on_the_test_images(study, data) -> None:
    verified = ad.verify(study, seeds=2, top=1, workers=1, progress=False)
    row, teacher = verified.students[0], verified.teacher_row()
    assert teacher is not None
    test = datasets.load_test(study.config.data, study.directory / "cache")
    assert verified.test_images == len(test) == 80
    for one in (row, teacher):
        assert 0 < one.measures["average_precision"].mean <= 1
        assert len(one.recalls) == 3
        assert all(recall is None or 0 <= recall <= 1 for recall in one.recalls)
    shown = [recall for recall in row.recalls if recall is not None]
    assert np.mean(shown) == pytest.approx(row.measures["macro_recall"].mean)
    runner = CliRunner()
    table = runner.invoke(app, ["verify", str(study.directory), "--seeds", "2", "--top", "1", "--workers", "1"])
    assert table.exit_code == 0, table.output
    report = runner.invoke(app, ["report", str(study.directory)])
    assert report.exit_code == 0, report.output
    again = export(
        study.directory,
        next(t for t in study.trials() if t.number == row.trial),
        study.directory / "out",
        latency=False,
    )
    assert "Verified" in (again.folder / "README.md").read_text()
    assert "Labels" in (again.folder / "README.md").read_text()
