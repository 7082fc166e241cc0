"""Export of a student that sees smaller images: every file and ``predict.py`` agree with its evaluation."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import autodistill as ad
from autodistill.delivery.export.write import export
from autodistill.delivery.verify.file_costs import student_network
from autodistill.training.data import datasets
from autodistill.training.trials.trial_files import student_facts

SPACE = {
    "student": {"family": "resnet", "width": 4, "depth": 1, "resolution": [20]},
    "distillation": {"loss": "kd", "temperature": 4, "alpha": 0.5},
    "train": {"lr": 0.02},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> ad.Study:
    """One student of colour images of 32 px that sees 20 px, beside a teacher that sees all."""
    study = ad.Study.create(
        data={"source": "synthetic", "image_size": 32, "options": {"classes": 4, "count": 240, "size": 32}},
        teacher={
            "source": "auto",
            "accept_weak": True,
            "options": {"epochs": 1, "model": {"family": "resnet", "width": 4, "depth": 1}},
        },
        space=SPACE,
        objectives=["accuracy", "params", "macs"],
        epochs=2,
        rungs="off",
        survey="off",
        sampler="random",
        directory=tmp_path_factory.mktemp("studies") / "small",
    )
    ad.search(study, budget="1trials", workers=1)
    return study


@pytest.fixture(scope="module")
def done(study, tmp_path_factory):
    trial = next(one for one in study.trials() if one.values)
    formats = ("safetensors", "onnx", "onnx-int8")
    return export(study.directory, trial, tmp_path_factory.mktemp("export") / "out", formats=formats, latency=False)


def test_facts_state_the_input_and_the_size_before_it(study, done):
    facts = student_facts(study.directory, done.trial)
    assert (facts["image_size"], facts["decoded_size"]) == (20, 32)
    told = json.loads((done.folder / "preprocess.json").read_text())
    assert (told["image_size"], told["decoded_size"]) == (20, 32)
    assert "shorter side to decoded_size" in told["resize"]
    assert "then to image_size, by bilinear" in told["resize"]
    assert "20 x 20 px" in (done.folder / "README.md").read_text()


def test_files_take_images_of_that_side_and_give_the_accuracy_of_the_search(study, done):
    assert [file.state for file in done.checked] == ["ok"] * 3
    session = onnxruntime.InferenceSession(str(done.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 20, 20]
    trial = next(one for one in study.trials() if one.values)
    exact = next(file for file in done.checked if file.format == "onnx")
    assert exact.accuracy == pytest.approx(trial.values["accuracy"], abs=1e-6)
    data = datasets.load_images(study.config.data, study.directory / "cache")
    assert student_network(trial.student, data).image_size == 20


def test_predict_decodes_at_the_size_of_the_study_and_scales_as_the_evaluation_did(study, done, tmp_path):
    rng = np.random.default_rng(0)
    names = []
    for index in range(4):
        small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        small.resize((120, 90), Image.Resampling.BICUBIC).save(tmp_path / f"{index}.png")
        names.append(str(tmp_path / f"{index}.png"))
    script = [sys.executable, str(done.folder / "predict.py"), *names, "--json", "--top", "4"]
    said = json.loads(subprocess.run(script, capture_output=True, text=True, check=True).stdout)
    facts = student_facts(study.directory, done.trial)
    images = []
    for name in names:
        with Image.open(name) as picture:
            square = picture.crop((15, 0, 105, 90)).resize((32, 32), Image.Resampling.BICUBIC)
        images.append(np.asarray(square).transpose(2, 0, 1))
    pixels = torch.from_numpy(np.stack(images)).float() / 255
    seen = torch.nn.functional.interpolate(pixels, (20, 20), mode="bilinear", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(facts[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        shares = ad.load(done.folder)((seen - mean) / std).softmax(1).numpy()
    for entry, row in zip(said, shares, strict=True):
        found = {one["name"]: one["probability"] for one in entry["classes"]}
        names_of = facts["classes"]
        assert found == pytest.approx({names_of[i]: float(row[i]) for i in range(4)}, abs=2e-3)
        assert entry["classes"][0]["name"] == names_of[int(row.argmax())]


def test_the_verified_student_is_evaluated_at_its_own_side(study):
    verified = ad.verify(study, seeds=1)
    row = verified.students[0]
    assert row.accuracy is not None
    assert 0 <= row.accuracy.mean <= 1
