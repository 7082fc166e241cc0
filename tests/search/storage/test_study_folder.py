from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from toys import evaluate, make_study

import autodistill as ad
from autodistill.core.errors import ResourceError, StoreError, StudyInUseError, UsageError
from autodistill.search.storage import study_folder as store


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
        "import sys, time; from pathlib import Path; from autodistill.search.storage.study_folder import folder_lock\n"
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


def test_a_run_copies_the_database_first_and_a_damaged_one_says_how_it_is_rebuilt(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    ad.search(study, evaluate=evaluate, budget="3trials")
    ad.search(study, evaluate=evaluate, budget="6trials")
    del study
    database, copy = tmp_path / "study.db", tmp_path / "study.db.backup"
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (3,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    database.write_bytes(b"this is no database, it only has the name of one" * 40)
    with pytest.raises(StoreError, match=f"'autodistill repair {tmp_path}' rebuilds it"):
        store.open_storage(tmp_path)
    for name in ("study.db-wal", "study.db-shm", "results.jsonl"):
        (tmp_path / name).unlink(missing_ok=True)
    copy.rename(database)
    assert len(make_study(tmp_path).trials()) == 3


def test_missing_disk_space_for_the_copy_is_an_error_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ResourceError, match=r"cannot write .*study\.db\.backup: .*No space left"):
        ad.search(study, evaluate=evaluate, budget="3trials")
    assert study.trials() == []
    assert not [path for path in tmp_path.iterdir() if "backup" in path.name]


@pytest.mark.parametrize("memory", [False, True])
def test_many_system_attributes_are_written_at_once_and_others_stay(tmp_path: Path, memory: bool) -> None:
    storage = store.open_storage(None if memory else tmp_path)
    study = optuna.create_study(storage=storage, study_name="a")
    other = optuna.create_study(storage=storage, study_name="b")
    wrapped = study._storage
    for number in (study._study_id, other._study_id):
        wrapped.set_study_system_attr(number, "old", "before")
        wrapped.set_study_system_attr(number, "kept", [1])
    store.set_system_attributes(wrapped, study._study_id, {"old": {"a": None}, "new": "é", "number": 3})
    found = wrapped.get_study_system_attrs(study._study_id)
    assert {name: found[name] for name in ("old", "kept", "new", "number")} == {
        "old": {"a": None}, "kept": [1], "new": "é", "number": 3,
    }  # fmt: skip
    untouched = wrapped.get_study_system_attrs(other._study_id)
    assert (untouched["old"], untouched["kept"], "new" in untouched) == ("before", [1], False)


ODD_NAMES = ["a?b", "a%41b#c", "{SCHEMA_VERSION}", "a?mode=memory", "ä b'\"&;", "file:x"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_trials_are_in_their_folder_whatever_its_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path(name), tmp_path / "plain" / name):
        study = make_study(folder)
        ad.search(study, evaluate=evaluate, budget="2trials", progress=False)
        del study
        with contextlib.closing(sqlite3.connect((folder / "study.db").absolute())) as connection:
            assert connection.execute("SELECT count(*) FROM trials").fetchone() == (2,)
        assert len(optuna.load_study(study_name="toy", storage=store.read_folder(folder)).trials) == 2
        assert len(optuna.load_study(study_name="toy", storage=store._read_only(folder / "study.db")).trials) == 2
    found = {path.name for path in tmp_path.iterdir()} | {path.name for path in (tmp_path / "plain").iterdir()}
    assert found == {name, "plain"}


def test_two_folders_never_share_their_trials(tmp_path: Path) -> None:
    studies = [make_study(tmp_path / name) for name in ("a?x", "a?y", "a", "aA", "a%41")]
    ad.search(studies[0], evaluate=evaluate, budget="2trials", progress=False)
    assert [len(make_study(study.directory).trials()) for study in studies] == [2, 0, 0, 0, 0]
