"""Every file of a study damaged in every way: a message, the same trials, and a repair; never other trials."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from faults_runner import Runner, table
from typer.testing import CliRunner, Result

from autodistill.cli import app

pytestmark = pytest.mark.filterwarnings("default::UserWarning")  # which the commands print as notes
SEED = 7


def flip(path: Path, at: float = 0.5) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    if data:
        data[int(at * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": cut,
    "flipped": flip,
    "flipped at the start": lambda path: flip(path, 0.0),
    "rubbish": lambda path: path.write_bytes(b"\xff\x00rubbish\n" * 500),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
FILES = ("study.db", "study.yaml", "results.jsonl", "front.json", "front.csv", "front.png", "study.db.backup")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def check_refused_politely(result: Result) -> None:
    """An exit code that is documented, and no traceback."""
    assert result.exit_code in (0, 2, 5, 6), (result.output, result.exception)
    assert "internal error" not in result.output
    assert "Traceback" not in result.output


@pytest.fixture(scope="module")
def made(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two runs, so that there is a copy of its database."""
    folder = tmp_path_factory.mktemp("made") / "study"
    for budget in ("30epochs", "60epochs"):
        assert runner.search(folder, budget, seed=SEED)["code"] == 0
    return folder


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "study")


@pytest.fixture(scope="module")
def expected(made: Path) -> list[Any]:
    return table(made, seed=SEED)


@pytest.fixture(scope="module")
def listed(made: Path) -> Any:
    return json.loads(call("trials", made, "--json").stdout)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_gives_a_message_or_the_same_trials(
    study: Path, listed: Any, expected: list[Any], name: str, how: str
) -> None:
    DAMAGE[how](study / name)
    for command in ("trials", "front"):
        result = call(command, study, "--json")
        check_refused_politely(result)
        if command == "trials" and result.exit_code == 0:
            found = json.loads(result.stdout)
            assert found == listed or name == "study.db"
    if (study / name).is_dir():
        return
    repaired = call("repair", study)
    check_refused_politely(repaired)
    if repaired.exit_code == 0:
        assert table(study, seed=SEED) == expected


@pytest.mark.parametrize("at", [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99])
def test_a_bit_that_flips_anywhere_in_the_database_is_mended(study: Path, expected: list[Any], at: float) -> None:
    """SQLite has no checksums: the lines of the results file have, so a repair also finds what SQLite does not."""
    flip(study / "study.db", at)
    for suffix in ("-wal", "-shm"):
        (study / f"study.db{suffix}").unlink(missing_ok=True)
    result = call("repair", study)
    assert result.exit_code == 0, result.output
    assert table(study, seed=SEED) == expected


def test_without_its_write_ahead_log_a_study_is_refused_and_repaired(runner: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    assert runner.search(folder, "60epochs", seed=SEED, at={"commit": 260})["code"] < 0
    known = [row for row in table(folder, seed=SEED) if row[1] in ("COMPLETE", "PRUNED", "FAIL")]
    assert len(known) > 3
    runner.search(folder, "200epochs", seed=SEED, at={"commit": 100})
    before = [row for row in table(folder, seed=SEED) if row[1] in ("COMPLETE", "PRUNED", "FAIL")]
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    shutil.copy(folder / "study.db.backup", copy / "study.db")  # as old as a log of any length can leave it
    result = call("search", copy / "study.yaml", "--dir", copy)
    assert (result.exit_code, "autodistill repair" in result.output) == (6, True), result.output
    assert "lacks results" in call("trials", copy).output
    assert call("repair", copy).exit_code == 0
    now = {row[0]: row for row in table(copy, seed=SEED)}
    assert [now.get(row[0]) for row in before] == before


def test_a_healthy_study_is_left_as_it_is(study: Path) -> None:
    before = (study / "study.db").read_bytes()
    result = call("repair", study)
    assert (result.exit_code, "nothing to repair" in result.output) == (0, True), result.output
    assert (study / "study.db").read_bytes() == before


def test_a_repair_says_what_it_found_and_what_is_lost(study: Path) -> None:
    lines = (study / "results.jsonl").read_bytes().splitlines(keepends=True)
    with closing(sqlite3.connect(study / "study.db.backup")) as connection:
        (kept,) = connection.execute("SELECT count(*) FROM trials").fetchone()
    gone = kept + 1
    (study / "results.jsonl").write_bytes(b"".join(line for line in lines if f'"number":{gone},'.encode() not in line))
    (study / "study.db").write_bytes(b"not a database")
    result = call("repair", study, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["lost"] == [gone]
    assert said["sources"]["study.db"].startswith("damaged")
    assert said["sources"]["study.db.backup"].startswith("healthy")
    assert (study / said["kept"]).read_bytes() == b"not a database"
    assert f"lost: 1 trial ({gone})" in result.stderr
    rows = json.loads(call("trials", study, "--json").stdout)
    assert [row["number"] for row in rows] == list(range(len(rows)))
    assert (rows[gone]["state"], rows[gone]["reason"]) == ("FAIL", "WORKER_LOST")
    assert "lost with the damaged database" in rows[gone]["message"]


def test_a_repaired_study_goes_on_as_it_would_have(runner: Runner, study: Path, made: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(made, tmp_path / "whole")
    (study / "study.db").write_bytes(b"")
    assert call("repair", study).exit_code == 0
    for folder in (study, whole):
        assert runner.search(folder, "100epochs", seed=SEED)["code"] == 0
    assert table(study, seed=SEED) == table(whole, seed=SEED)


def test_a_study_without_any_database_or_settings_cannot_be_repaired(study: Path) -> None:
    for name in ("study.db", "study.db.backup", "study.yaml"):
        (study / name).unlink()
    result = call("repair", study)
    assert result.exit_code == 6
    assert "Write the study file again" in result.output


def test_a_lost_study_file_is_written_again(study: Path, expected: list[Any]) -> None:
    before = (study / "study.yaml").read_text()
    (study / "study.yaml").unlink()
    assert call("repair", study).exit_code == 0
    assert (study / "study.yaml").read_text() == before
    assert table(study, seed=SEED) == expected
