"""What a user gets wrong about spaces and latency: a message, exit code 2 or 4, nothing written, no stack trace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from autodistill.cli import app

run = CliRunner()
TEACHER = "from torch import nn\n\n\ndef small():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small_teacher.py").write_text(TEACHER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUTODISTILL_LEASE", str(tmp_path / "lease"))
    return tmp_path


def refused(code: int, *arguments: str) -> str:
    result = run.invoke(app, list(arguments))
    assert result.exit_code == code, (result.exit_code, result.stderr)
    assert "Traceback" not in result.stderr + result.stdout
    return result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("studnet: {family: resnet, width: [4]}", "did you mean 'student'"),
        ("student: {family: resnet, widht: [4, 8]}", "widht"),
        ("student: {family: [resnett, vit]}", "did you mean 'resnet'"),
        ("student: {family: resnet, width: {low: 16, high: 4}}", "the wrong way round"),
        ("student: {family: resnet, width: {low: 4, hihg: 16}}", "did you mean 'high'"),
        ("student: {family: resnet, width: [1]}", "allowed: 2 to 128"),
        ("student: {family: densenet}", "family densenet takes 28 to 512 px, not 8"),
        ("include: tinny", "did you mean 'tiny'"),
        ("student: [", "not valid YAML"),
    ],
)
def test_a_space_that_is_wrong_says_where_and_what_is_allowed(folder: Path, text: str, message: str) -> None:
    (folder / "mine.yaml").write_text(text + "\n")
    assert message in refused(2, "spaces", "check", "mine.yaml", "--image-size", "8", "--channels", "1")


def test_a_resolution_that_a_family_cannot_take_is_refused_before_a_search_begins(folder: Path) -> None:
    (folder / "mine.yaml").write_text("student: {family: densenet}\n")
    said = refused(2, "search", "--data", "digits", "--space", "mine.yaml", "--image-size", "8", "--dir", "study")
    assert "densenet takes images of 28 to 512 px, got 8" in said
    assert not (folder / "study").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("print(1, 2)", "must print JSON such as"),
        ("import time; time.sleep(60)", "ran longer than latency.timeout_s = 0.5"),
    ],
)
def test_a_latency_command_that_fails_hangs_or_prints_nonsense_ends_the_search_with_4(
    folder: Path, code: str, message: str
) -> None:
    command = f"{sys.executable} -c '{code}' {{onnx}}"
    (folder / "study.yaml").write_text(
        "data: {source: digits, train_size: 200}\n"
        "teacher: {source: 'small_teacher:small', accept_weak: true}\n"
        "space: {student: {family: resnet, width: [2, 3]}}\n"
        f'latency: {{command: "{command}", timeout_s: {0.5 if "sleep" in code else 60.0}}}\n'
        "epochs: 1\nbudget: 1trials\n"
    )
    assert message in refused(4, "search", "study.yaml", "--dir", "study")
    assert not (folder / "study").exists()


@pytest.mark.parametrize(
    ("latency", "message"),
    [
        ({"command": "bench"}, "has no {onnx}"),
        ({"comand": "bench {onnx}"}, "did you mean 'command'"),
        ({"runtime": "onnxrutime"}, "onnxruntime"),
        ({"batch": 0}, "latency.batch"),
        ({"table": "none.csv"}, "none.csv"),
    ],
)
def test_a_latency_target_that_cannot_be_is_refused(folder: Path, latency: dict[str, Any], message: str) -> None:
    given = "".join(f"  {key}: {value!r}\n" for key, value in latency.items())
    (folder / "study.yaml").write_text(
        "data: {source: digits, train_size: 200}\n"
        "teacher: {source: 'small_teacher:small', accept_weak: true}\n"
        f"space: {{student: {{family: resnet, width: [2, 3]}}}}\nlatency:\n{given}"
        "epochs: 1\nbudget: 1trials\n"
    )
    assert message in refused(2, "search", "study.yaml", "--dir", "study")
