"""Importance of parameters, conditional ones included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.search.analysis.importance import importance_shares, left_out
from autodistill.search.study.study import Study

SPACE: dict[str, Any] = {
    "student": {
        "family": ["resnet", "vit", "rare"],
        "resnet": {"width": [2, 4, 8, 16]},
        "vit": {"heads": [1, 2, 4]},
        "rare": {"size": [1, 2]},
    },
    "distillation": {
        "loss": ["none", "kd"],
        "temperature": {"low": 1.0, "high": 8.0, "when": {"loss": ["kd"]}},
    },
    "train": {"lr": {"low": 0.001, "high": 0.1, "log": True}},
}


def evaluate(candidate: ad.Candidate) -> Iterator[ad.Report]:
    """Size is the width of a resnet, and the same for every vit; only the temperature moves the accuracy."""
    student = candidate.student
    params = 100.0 * student["width"] if student["family"] == "resnet" else 700.0
    yield ad.Report(0, {"params": params})
    accuracy = 0.5 + 0.05 * candidate.distillation.get("temperature", 4.5)
    yield ad.Report(1, {"accuracy": accuracy, "params": params}, epochs=1, seconds=0.1)


def make(**keys: Any) -> Study:
    study = ad.Study.create(
        name="toy", space=SPACE, objectives=["accuracy", "params"], epochs=1, rungs="off", sampler="random", **keys
    )
    student = {"family": "rare", "size": 1}
    study.enqueue({"student": student, "distillation": {"loss": "none"}, "train": {"lr": 0.01}})
    for number in range(48):
        student = {"family": "vit", "heads": 2 ** (number % 3)}
        if number % 2:
            student = {"family": "resnet", "width": 2 ** (1 + number // 2 % 4)}
        mix = {"loss": "none"} if number % 3 == 0 else {"loss": "kd", "temperature": 1.0 + number * 5 % 29 / 4}
        study.enqueue({"student": student, "distillation": mix, "train": {"lr": 0.001 * 1.09 ** (number * 7 % 48)}})
    ad.search(study, evaluate=evaluate, budget="49trials", progress=False)
    return study


def test_what_exists_only_under_a_condition_has_its_share() -> None:
    study = make(directory=None)
    shares = importance_shares(study)
    size, accuracy = shares["params"], shares["accuracy"]
    assert max(size, key=lambda name: size[name]) == "student.resnet.width"
    assert size["student.resnet.width"] > 0.5
    assert size["student.vit.heads"] < 0.1  # it is active in half of the trials, and does nothing
    assert max(accuracy, key=lambda name: accuracy[name]) == "distillation.temperature"
    assert set(size) == {"student.family", "student.resnet.width", "student.vit.heads"}
    assert sum(accuracy.values()) == pytest.approx(1.0)
    assert importance_shares(study) == shares
    assert left_out(study) == ["student.rare.size"]


def test_the_command_names_what_it_leaves_out(tmp_path: Any) -> None:
    make(directory=tmp_path / "toy")
    found = CliRunner().invoke(app, ["importance", str(tmp_path / "toy")])
    assert found.exit_code == 0
    assert "with one value in all): student.rare.size" in found.stderr
    assert "distillation.temperature" in found.stdout
    as_json = CliRunner().invoke(app, ["importance", str(tmp_path / "toy"), "--json"])
    assert '"left_out": [\n    "student.rare.size"\n  ]' in as_json.stdout
