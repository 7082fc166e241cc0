from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from toys import make_study

from autodistill.errors import StoreError, StudyInUseError, UsageError
from autodistill.search import store


def test_sqlite_runs_in_wal_mode(tmp_path: Path) -> None:
    make_study(tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"this is no database, it only has the name of one" * 40)
    with pytest.raises(StoreError, match=r"study\.db is not a healthy database"):
        store.open_storage(tmp_path)


def test_a_folder_that_is_not_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a study: it has no study\.db"):
        store.read_folder(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        store.read_folder(tmp_path / "nowhere")
    (tmp_path / "holiday.txt").write_text("not yours")
    with pytest.raises(UsageError, match=r"is not a study and not empty \(it holds holiday\.txt\)"):
        store.make_folder(tmp_path)


def test_the_folder_is_private(tmp_path: Path) -> None:
    store.make_folder(tmp_path / "study")
    assert (tmp_path / "study").stat().st_mode & 0o777 == 0o700


def test_a_second_driver_is_refused_and_a_dead_one_frees_the_lock(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from autodistill.search.store import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StudyInUseError, match=f"in use by process {other.pid}"), store.folder_lock(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    with store.folder_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "front.json"
    store.write_atomically(path, "old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["front.json"]
