"""Latencies of other machines: tables, and commands that measure an ONNX file."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from autodistill.config.study_file import StudyConfig
from autodistill.core.errors import InfeasibleError, UsageError, UserCodeError
from autodistill.core.records import LatencyTarget
from autodistill.training.costs.cost_memory import LATENCY, CostMemory
from autodistill.training.costs.latency_targets import is_elsewhere, latency_elsewhere
from autodistill.training.students import build as students
from autodistill.training.survey.survey import survey

SHAPE = {"image_size": 8, "channels": 1}
STUDENT = {"family": "resnet", "width": 4}
TABLE = "family,width,reduction,latency_ms\nresnet,4,,1.5\nresnet,8,auto,2.5\nresnet,8,,9\nvit,16,,fast\n"


@pytest.fixture(scope="module")
def model() -> Any:
    return students.build_student(STUDENT, **SHAPE, num_classes=3)


def command(code: str, *, timeout_s: float = 60.0) -> LatencyTarget:
    return LatencyTarget(command=f"{sys.executable} -c '{code}' {{onnx}}", timeout_s=timeout_s)


def ask(model: Any, target: LatencyTarget, student: dict[str, Any] = STUDENT) -> float:
    return latency_elsewhere(student, model, target, **SHAPE)


def test_the_command_gets_a_file_that_onnx_runtime_runs(model: Any, tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    printed = '"{\\"latency_ms\\": 1.25}"'
    code = f'import shutil, sys; shutil.copy(sys.argv[1], "{copy}"); print("warming up"); print({printed})'
    assert ask(model, command(code)) == 1.25
    session = onnxruntime.InferenceSession(copy, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [1, 8, 8]
    assert session.get_outputs()[0].shape[1:] == [3]


def test_a_bare_number_is_accepted(model: Any) -> None:
    assert ask(model, command("print(2.5)")) == 2.5


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ('import sys; sys.exit("no board")', r"ended with exit code 1: no board"),
        ("pass", r"in its last line; it printed: nothing"),
        ('print("quick")', r"it printed: quick"),
        ("print(-1)", r"it printed: -1"),
        ("print(True)", r"it printed: True"),
        ('print("{}")', r"it printed: \{\}"),
        ('print("NaN")', r"it printed: NaN"),
    ],
)
def test_a_command_that_fails_or_prints_nonsense_is_the_users_code_failing(model, code: str, message: str) -> None:
    with pytest.raises(UserCodeError, match=message) as caught:
        ask(model, command(code))
    assert caught.value.exit_code == 4


def test_a_command_that_hangs_is_stopped(model: Any) -> None:
    with pytest.raises(UserCodeError, match=r"ran longer than latency.timeout_s = 0.5"):
        ask(model, command("import time; time.sleep(60)", timeout_s=0.5))


def test_a_command_that_hangs_takes_the_processes_it_started_with_it(model: Any, tmp_path: Path) -> None:
    started = tmp_path / "pid"
    code = (
        "import subprocess, time; "
        f'child = subprocess.Popen(["sleep", "60"]); open("{started}", "w").write(str(child.pid)); time.sleep(60)'
    )
    with pytest.raises(UserCodeError, match="ran longer"):
        ask(model, command(code, timeout_s=5.0))
    status = Path(f"/proc/{started.read_text()}/stat")
    deadline = time.monotonic() + 5
    while status.exists() and status.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_a_command_with_an_open_quote_is_refused(model: Any) -> None:
    with pytest.raises(UsageError, match="cannot be split into words"):
        ask(model, LatencyTarget(command="bench 'a {onnx}"))


def test_a_command_that_does_not_exist_is_named(model: Any) -> None:
    with pytest.raises(UserCodeError, match="cannot be started: No such file or directory: 'no-such-bench'"):
        ask(model, LatencyTarget(command="no-such-bench {onnx}"))


def test_a_table_is_read_by_the_students_settings(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "board.csv"
    path.write_text(TABLE)
    target = LatencyTarget(table=str(path))
    assert ask(model, target) == 1.5
    assert ask(model, target, {"family": "resnet", "width": 8}) == 2.5
    assert ask(model, target, {"family": "resnet", "width": 8, "reduction": 4}) == 9
    with pytest.raises(InfeasibleError, match=r"resnet w6 d1 is not in .*board.csv"):
        ask(model, target, {"family": "resnet", "width": 6})
    with pytest.raises(UsageError, match=r"row 4: latency_ms is 'fast'"):
        ask(model, target, {"family": "vit", "width": 16})


def test_a_json_table_is_read_too(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    student = {"family": "convnext", "width": 8, "grn": True}
    path.write_text(json.dumps([{"student": student, "latency_ms": 3}]))
    assert ask(model, LatencyTarget(table=str(path)), student) == 3


@pytest.mark.parametrize(("name", "text"), [("a.csv", ""), ("a.csv", "x,y\n1,2\n"), ("a.json", "{"), ("a.json", "[3]")])
def test_a_table_that_is_none_is_refused(model: Any, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=r"latency\.table"):
        ask(model, LatencyTarget(table=str(tmp_path / name)))


def test_settings_that_cannot_be_are_refused_before_anything_is_built() -> None:
    assert not is_elsewhere(LatencyTarget())
    for target, message in (
        (LatencyTarget(command="bench {onnx}", table="a.csv"), "both given"),
        (LatencyTarget(command="bench"), r"has no \{onnx\}"),
    ):
        with pytest.raises(UsageError, match=message):
            survey([STUDENT], **SHAPE, num_classes=3, metrics=[LATENCY], target=target)


def test_a_survey_by_table_skips_what_is_not_in_it_and_notices_an_edit(tmp_path: Path) -> None:
    path = tmp_path / "board.csv"
    path.write_text(TABLE)
    target = LatencyTarget(table=str(path))
    pool = [STUDENT, {"family": "resnet", "width": 6}]
    options: dict[str, Any] = {**SHAPE, "num_classes": 3, "metrics": ["params", LATENCY], "target": target}
    memory = CostMemory(None)
    rows = survey(pool, **options, memory=memory)
    assert rows[0].costs[LATENCY] == 1.5
    assert "resnet w6 d1 is not in" in rows[1].error
    path.write_text(TABLE.replace("1.5", "1.75"))
    assert survey(pool[:1], **options, memory=memory)[0].costs[LATENCY] == 1.75


def test_a_target_of_this_machine_keeps_its_key_and_commands_have_their_own() -> None:
    assert LatencyTarget().key() == LatencyTarget(timeout_s=5).key()
    assert len({LatencyTarget().key(), LatencyTarget(command="a {onnx}").key(), LatencyTarget(table="a").key()}) == 3


def test_a_study_file_names_its_table_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: a\nlatency: {table: board.csv, timeout_s: 5}\n")
    assert StudyConfig.load(tmp_path / "study.yaml").latency == LatencyTarget(
        table=str(tmp_path / "board.csv"), timeout_s=5.0
    )
