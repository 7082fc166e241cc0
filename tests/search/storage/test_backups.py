"""Copies of a database are never worse than what they replace, and a lost database begins no new study."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import pytest
from toys import evaluate, make_study

import autodistill as ad
from autodistill.core.errors import StoreError
from autodistill.search.storage import backups
from autodistill.search.storage import study_folder as store


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    for budget in ("2trials", "4trials"):
        ad.search(make_study(tmp_path), evaluate=evaluate, budget=budget, progress=False)
    (tmp_path / "study.yaml").write_text("name: toy\n")
    return tmp_path


def lose(folder: Path, how: str) -> None:
    for suffix in ("-wal", "-shm"):
        (folder / f"study.db{suffix}").unlink(missing_ok=True)
    path = folder / "study.db"
    path.unlink()
    if how == "empty":
        path.touch()
    if how == "no tables":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 1")
            connection.commit()


@pytest.mark.parametrize("how", ["empty", "no tables", "missing"])
def test_a_lost_database_begins_no_new_study_and_keeps_its_copy(searched: Path, how: str) -> None:
    lose(searched, how)
    copy = searched / "study.db.backup"
    before = copy.read_bytes()
    with pytest.raises(StoreError, match=f"'autodistill repair {searched}' rebuilds it"):
        make_study(searched)
    assert copy.read_bytes() == before
    copy.replace(searched / "study.db")
    with pytest.raises(StoreError, match=r"lacks results that .*results\.jsonl has, such as that of trial 3"):
        make_study(searched)
    (searched / "results.jsonl").unlink()
    assert len(make_study(searched).trials()) == 2


def test_an_empty_database_beside_a_study_file_is_damage_even_without_a_copy(searched: Path) -> None:
    lose(searched, "empty")
    (searched / "study.db.backup").unlink()
    with pytest.raises(StoreError, match="is empty, although a study was in it"):
        make_study(searched)
    with pytest.raises(StoreError, match="is empty"):
        store.read_folder(searched)


def test_a_study_whose_first_start_was_killed_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "study.db").touch()
    assert make_study(tmp_path).trials() == []


def test_a_copy_is_never_replaced_by_one_with_fewer_trials(searched: Path) -> None:
    ad.search(make_study(searched), evaluate=evaluate, budget="5trials", progress=False)
    assert backups.count_trials(searched / "study.db.backup") == 4
    dated = [path for path in searched.iterdir() if path.name.startswith("study.db.backup-")]
    assert [backups.count_trials(path) for path in dated] == [2]
    dated[0].replace(searched / "study.db")  # somebody goes on from an old copy
    for suffix in ("-wal", "-shm"):
        (searched / f"study.db{suffix}").unlink(missing_ok=True)
    backups.backup(searched)
    assert backups.count_trials(searched / "study.db.backup") == 4
    assert backups.best_copy(searched) == searched / "study.db.backup"


def test_only_some_dated_copies_are_kept(tmp_path: Path) -> None:
    for trials in range(1, 8):
        ad.search(make_study(tmp_path), evaluate=evaluate, budget=f"{trials}trials", progress=False)
    found = sorted(path.name for path in tmp_path.iterdir() if "backup" in path.name)
    assert len(found) == 1 + backups.KEPT
    assert backups.count_trials(tmp_path / "study.db.backup") == 6


def test_what_killed_processes_left_is_removed_and_nothing_else(searched: Path) -> None:
    gone = [".study.db.backup.abcd1234", ".study.db.backup.abcd1234-journal", ".front.json.abcd1234"]
    kept = [".study.yaml.abcd1234", ".gitignore", ".mine.settings", ".json.abcd1234"]
    for name in (*gone, *kept):
        (searched / name).touch()
        if name != ".study.yaml.abcd1234":  # another process may be writing it now
            os.utime(searched / name, (time.time() - 86400,) * 2)
    ad.search(make_study(searched), evaluate=evaluate, budget="5trials", progress=False)
    names = {path.name for path in searched.iterdir()}
    assert names.isdisjoint(gone)
    assert names >= set(kept)
