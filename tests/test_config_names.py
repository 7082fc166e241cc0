"""Misspelt names are refused where a study is made, from Python and from the command line alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.errors import ConfigError, UsageError

MISSPELT = [
    ({"data": "digit"}, "unknown data source 'digit'; did you mean 'digits'?"),
    ({"teacher": "resnt18"}, "unknown teacher 'resnt18'; did you mean 'resnet18'"),
    ({"teacher": ["resnet18", "resnt26d"]}, "unknown teacher 'resnt26d'; did you mean 'resnet26d'"),
    ({"teacher": "nowhere/teacher.onnx"}, "teacher.onnx: that file does not exist"),
    ({"teacher": "nowhere/folder"}, "folder: that folder or file does not exist"),
    ({"engine": "locl"}, "unknown engine 'locl'; did you mean 'local'?"),
    ({"training": {"batchsize": 3}}, "unknown training setting 'batchsize'; did you mean 'batch_size'"),
    ({"space": {"student": {"family": "resnt"}}, "data": "digits"}, "'resnt'; did you mean 'resnet'"),
    ({"space": {"student": {"family": "resnet"}, "distillation": {"loss": "dkdd"}}, "data": "digits"}, "'dkdd'; did"),
]


@pytest.mark.parametrize(("keys", "said"), MISSPELT)
def test_a_misspelt_name_is_refused_when_the_study_is_made_and_nothing_is_written(
    tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as created:
        ad.Study.create(**keys, directory=tmp_path / "study")
    assert said in str(created.value)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(keys))
    with pytest.raises(ConfigError) as opened:
        ad.Study.open(tmp_path / "study.yaml", directory=tmp_path / "study")
    assert said in str(opened.value)
    assert not (tmp_path / "study").exists()


def test_every_misspelt_name_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ad.Study.create(data="digit", teacher="resnt18", engine="locl")
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "unknown engine 'locl'",
        "unknown data source 'digit'",
        "unknown teacher 'resnt18'",
    ]


def test_the_command_line_says_the_same(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ad.Study.create(data="digit")
    result = CliRunner().invoke(app, ["search", "--data", "digit", "--dir", str(tmp_path / "study")])
    assert result.exit_code == 2
    assert str(caught.value) in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_right_the_second_time_makes_the_study_in_the_same_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        ad.Study.create(data="digits", teacher="resnt18", directory=tmp_path)
    assert ad.Study.create(data="digits", teacher="resnet18", directory=tmp_path).config.teacher.source == "resnet18"


def test_opening_a_study_again_looks_only_at_what_may_be_new_and_loads_no_torch(tmp_path: Path) -> None:
    ad.Study.create(data="digits", directory=tmp_path)
    with pytest.raises(ConfigError, match="unknown engine 'locl'"):
        ad.Study.open(tmp_path, engine="locl")
    code = (
        "import sys, autodistill as ad\n"
        f"study = ad.Study.open({str(tmp_path)!r})\n"
        "assert study.config.data.source == 'digits'\n"
        "assert not {'torch', 'timm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=Path(__file__).parent.parent)
