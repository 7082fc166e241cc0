"""The page about the way of a value through the package: its types and files are those of the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from places import ROOT

from autodistill.config.study_file import StudyConfig
from autodistill.core.records import Candidate
from autodistill.engines.setup.study_setup import config_space
from autodistill.search.space.space import Space
from autodistill.training.distillation.distillation_losses import kd
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.trials.training_spec import TrainingSpec

PAGE = (ROOT / "docs/development/walk_a_parameter.md").read_text(encoding="utf-8")
TYPES: tuple[Any, ...] = (StudyConfig, Space, Candidate, TrainingSpec, LossMix, kd)


def rows_below(heading: str) -> list[list[str]]:
    """Cells of the table below a heading of the page, without its head."""
    section = PAGE.split(heading, 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_temperature_passes_through_six_types_in_six_files() -> None:
    files = [(ROOT / "autodistill" / row[0].strip("` ")).resolve() for row in rows_below("### By its types")]
    assert files == [Path(inspect.getfile(one)).resolve() for one in TYPES]
    assert len(set(files)) == 6


def test_each_type_is_made_from_the_one_before_it() -> None:
    assert get_type_hints(config_space) == {"config": StudyConfig, "return": Space}
    assert get_type_hints(TrainingSpec.of)["candidate"] is Candidate
    assert get_type_hints(TrainingSpec.of)["return"] is TrainingSpec
    assert get_type_hints(TrainingSpec)["mix"] is LossMix
    assert get_type_hints(kd)["temperature"] is float


def test_a_temperature_in_a_study_file_is_the_argument_of_the_loss(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: walk\ndata: digits\nset: {distillation.temperature: 3.7}\n"
        "space:\n  student: {family: resnet, width: 8}\n"
        "  distillation: {loss: kd, temperature: {low: 1.0, high: 10.0, log: true}}\n"
    )
    space = config_space(StudyConfig.load(file))
    sections = space.nest(space.sample(np.random.default_rng(0)))
    spec = TrainingSpec.of(Candidate(0, sections["student"], sections["distillation"], sections["train"], 0), {})
    assert spec.mix.keywords == {"temperature": 3.7}
    student, teacher = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[0.2, 1.5, -1.0]])
    soft, softer = (teacher / 3.7).softmax(1), (student / 3.7).log_softmax(1)
    expected = (soft * (soft.log() - softer)).sum() * 3.7**2  # Hinton 2015, section 2.1
    assert torch.isclose(spec.mix.distillation_loss(student, teacher, None), expected)


def test_every_file_of_the_page_exists() -> None:
    names = re.findall(r"`([a-z_/]+\.py)`", PAGE)
    assert len(names) > 20
    assert [name for name in names if not (ROOT / "autodistill" / name).is_file()] == []


def test_the_names_in_each_step_occur_in_its_files() -> None:
    steps = [line for line in PAGE.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(steps) > 15
    missing = []
    for step in steps:
        files = re.findall(r"`([a-z_/]+\.py)`", step)
        text = "\n".join((ROOT / "autodistill" / name).read_text(encoding="utf-8") for name in files)
        names = re.findall(r"`([A-Za-z_][\w.]*)(?:\([^`]*\))?`", step)
        missing += [(step[:5], name) for name in names if not re.search(rf"\b{name.rpartition('.')[2]}\b", text)]
    assert missing == []
