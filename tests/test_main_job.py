"""The main job through the command line, with real students on the embedded images; minutes on a busy machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from places import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("isolated")]

SMALL = ("--train-size", "300", "--epochs", "3", "--survey", "6", "--set", "student.family=resnet,vit")


def line(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "autodistill", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line(*arguments), capture_output=True, text=True, env=environment(), check=False)


def read(*arguments: object) -> Any:
    done = program(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers") / "digits"
    done = program("teach", "--data", "digits", "--train-size", 300, "--epochs", 6, "--dir", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] > 0.3
    return folder


def test_two_workers_find_a_front_that_optuna_and_the_files_agree_on(teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    done = program(
        "search",
        "--data",
        "digits",
        *SMALL,
        "--teacher",
        teacher,
        "--budget",
        "5trials",
        "--workers",
        2,
        "--dir",
        folder,
    )
    assert done.returncode == 0, done.stderr
    assert "trial" in done.stdout.splitlines()[0]
    found = read("front", folder)
    # said beside the front: on which bounds it lies, and what verify found, which is nothing yet
    assert all(edge.keys() >= {"parameter", "side"} for edge in found.pop("range_bounds"))
    assert found.pop("verified_front") is None
    assert [trial.pop("verified") for trial in found["trials"]] == [None] * len(found["trials"])
    assert found == json.loads((folder / "front.json").read_text())
    assert [o["name"] for o in found["objectives"]] == ["accuracy", "params", "latency_ms"]
    assert len(found["trials"]) >= 1
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{folder / 'study.db'}")
    study = optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{folder / 'study.db'}")
    complete = {t.number: t.values for t in study.get_trials(states=[optuna.trial.TrialState.COMPLETE])}
    trials = read("trials", folder)
    listed = {t["number"]: list(t["values"].values()) for t in trials if t["state"] == "COMPLETE"}
    assert listed == complete
    assert len(study.directions) == 3


def test_an_interrupted_search_goes_on_by_the_same_command(teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    arguments = ("search", "--data", "digits", *SMALL, "--teacher", teacher, "--budget", "16trials", "--dir", folder)
    with subprocess.Popen(
        line(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            if (folder / "study.db").exists() and read("trials", folder):
                break
            time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Resume: autodistill search --data digits" in said
    before = {t["number"]: t for t in read("trials", folder)}
    again = program(*arguments)
    assert again.returncode == 0, again.stderr
    after = {t["number"]: t for t in read("trials", folder)}
    assert sorted(after) == list(range(len(after)))
    for number, trial in before.items():
        assert after[number]["student"] == trial["student"]
        if trial["state"] in ("COMPLETE", "PRUNED"):
            assert after[number] == trial
    assert not [t for t in after.values() if t["state"] in ("RUNNING", "PARTIAL") and t["reason"] != "PAUSED"]
