"""Flags of ``search`` and ``teach`` that describe the images."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from autodistill import cli
from autodistill.config.study_file import StudyConfig


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[StudyConfig]:
    """The configurations that ``teach`` would train on; nothing is trained."""
    found: list[StudyConfig] = []

    def stand_in(config: StudyConfig, *rest: Any) -> dict[str, Any]:
        found.append(config)
        return {"accuracy": 0.5}

    monkeypatch.setattr(importlib.import_module("autodistill.commands.teach"), "_teach", stand_in)
    return found


def test_teach_takes_options_of_the_data_and_repeats_them_in_the_next_command(
    tmp_path: Path, taught: list[StudyConfig]
) -> None:
    (tmp_path / "labels.csv").write_text("path,kind\n")
    call = ["teach", "--data", "manifest", "--data-root", str(tmp_path / "labels.csv"), "--drop-duplicates"]
    result = CliRunner().invoke(cli.app, [*call, "--set", "data.options.label=kind", "--set", "lr=0.1"])
    assert result.exit_code == 0, result.output
    assert taught[0].data is not None
    assert taught[0].data.drop_duplicates
    assert taught[0].data.options == {"label": "kind"}
    assert "--drop-duplicates --set data.options.label=kind --teacher" in result.output.replace("'", "")


def test_a_wrong_key_of_the_data_is_named(tmp_path: Path, taught: list[StudyConfig]) -> None:
    result = CliRunner().invoke(cli.app, ["teach", "--data", "digits", "--set", "data.rot=x"])
    assert result.exit_code == 2
    assert "data.rot" in result.output
    assert taught == []


def test_a_table_that_does_not_exist_is_told_before_the_search(tmp_path: Path) -> None:
    call = ["search", "--data", "manifest", "--data-root", str(tmp_path / "labels.csv"), "--dir", str(tmp_path / "s")]
    result = CliRunner().invoke(cli.app, call)
    assert result.exit_code == 2
    assert "labels.csv' does not exist; expected a table of images" in " ".join(result.output.split())
    assert not (tmp_path / "s").exists()
