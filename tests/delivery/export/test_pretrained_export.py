"""A student that starts from published weights: its normalization goes into training, verification and every file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hub_cache import lay_hub_cache
from PIL import Image

import autodistill as ad
from autodistill.delivery.export.write import export
from autodistill.training.data import datasets
from autodistill.training.trials.trial_files import load_student, student_facts

TAG = "test_efficientnet"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> ad.Study:
    """One student of colour images, trained for two epochs from weights in the hub's cache."""
    folder = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        lay_hub_cache(patch, folder / "hf", TAG)
        study = ad.Study.create(
            data={"source": "synthetic", "image_size": 32, "train_size": 240, "options": {"classes": 3}},
            teacher={
                "source": "auto",
                "accept_weak": True,
                "options": {"epochs": 1, "model": {"family": "resnet", "width": 8, "depth": 1}},
            },
            space={"student": {"family": "timm", "model": TAG}, "train": {"lr": [0.001, 0.002]}},
            training={"init": "pretrained"},
            objectives=["accuracy", "params"],
            epochs=2,
            rungs="off",
            survey="off",
            sampler="random",
            directory=folder / "study",
        )
        ad.search(study, budget="1trials", workers=1)
    return study


def test_the_facts_of_the_student_are_those_of_its_weights(study: ad.Study) -> None:
    config = timm.get_pretrained_cfg(TAG)
    facts = student_facts(study.directory, 0)
    assert (facts["mean"], facts["std"]) == (list(config.mean), list(config.std))
    assert facts["weights"]["source"] == TAG
    assert facts["weights"]["licence"] == config.license
    images = datasets.load_images(study.config.data, study.directory / "cache")
    assert tuple(facts["mean"]) != images.mean


def test_its_accuracy_is_that_of_images_normalized_as_its_facts_say(study: ad.Study) -> None:
    facts, model = student_facts(study.directory, 0), load_student(study.directory, 0)
    data = datasets.load_images(study.config.data, study.directory / "cache")
    pixels = torch.from_numpy(data.val.images).float() / 255
    mean, std = (torch.tensor(facts[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        right = model((pixels - mean) / std).argmax(1).numpy() == data.val.labels
    assert right.mean() == pytest.approx(study.trials()[0].values["accuracy"])


def test_predict_py_answers_as_the_network_does_on_the_pixels_of_a_file(study: ad.Study, tmp_path: Path) -> None:
    export(study.directory, study.trials()[0], tmp_path / "out", latency=False)
    config = timm.get_pretrained_cfg(TAG)
    given = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert (given["mean"], given["std"]) == (list(config.mean), list(config.std))
    data = datasets.load_images(study.config.data, study.directory / "cache")
    files = []
    for index in range(4):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(data.val.images[index].transpose(1, 2, 0)).save(files[-1])
    script = [sys.executable, str(tmp_path / "out" / "predict.py"), *map(str, files)]
    lines = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    pixels = torch.from_numpy(np.array(data.val.images[:4])).float() / 255
    mean, std = (torch.tensor(given[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        decided = load_student(study.directory, 0)((pixels - mean) / std).argmax(1)
    for line, choice in zip(lines, decided.tolist(), strict=True):
        assert data.classes[choice] in line


def test_the_exported_folder_is_a_teacher_and_weights_for_others(study: ad.Study, tmp_path: Path) -> None:
    from autodistill.core.records import TeacherSpec
    from autodistill.training.teachers import load as teachers
    from autodistill.training.weights.source import resolve

    export(study.directory, study.trials()[0], tmp_path / "out", latency=False)
    data = datasets.load_images(study.config.data, study.directory / "cache")
    pixels = torch.from_numpy(data.val.images).float() / 255
    for text in (str(tmp_path / "out"), f"{study.directory}#0"):
        teacher = teachers.load_teacher(TeacherSpec(text), data)
        right = teacher(pixels).argmax(1).numpy() == data.val.labels
        assert right.mean() == pytest.approx(study.trials()[0].values["accuracy"])
        found = resolve(text)
        assert found.student == {"family": "timm", "model": TAG}
        assert (found.licence, found.classes) == (timm.get_pretrained_cfg(TAG).license, data.classes)
