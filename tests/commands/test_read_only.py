"""Reading a study leaves it as it is, also where its folder cannot be written."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import toys
from optuna.exceptions import StorageInternalError
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.commands.console.reading import read_study
from autodistill.core.errors import ResourceError, UsageError
from autodistill.delivery.dashboard.server import dashboard
from autodistill.search.storage import study_folder as store

ADD = "INSERT INTO trials (number, study_id, state) VALUES (12, 1, 'RUNNING')"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "finished"
    study = ad.Study.create(
        directory=path, name="toy", space=toys.SPACE, objectives=["accuracy", "params", "latency_ms"],
        sampler="random", epochs=9, rungs={"eta": 3, "levels": list(toys.LEVELS)},
    )  # fmt: skip
    ad.search(study, evaluate=toys.evaluate, costs=toys.costs, budget="12trials")
    return path


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy that no process has open."""
    copied = tmp_path / "a study, 100 %"
    copied.mkdir()
    shutil.copy(finished / "study.yaml", copied)
    closing = contextlib.closing
    with closing(sqlite3.connect(finished / "study.db")) as old, closing(sqlite3.connect(copied / "study.db")) as new:
        old.backup(new)
    return copied


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder can be written, by its permissions; the user who runs the tests may be allowed everything."""
    opened = os.open

    def refuse(path: Any, *args: Any, **keywords: Any) -> int:
        if Path(path).name == "lock":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **keywords)

    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    monkeypatch.setattr(os, "open", refuse)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.usefixtures("unwritable")
def test_a_folder_that_cannot_be_written_is_read_and_stays_as_it_is(finished: Path, folder: Path) -> None:
    before = contents(folder)
    study = read_study(folder)
    assert [t.to_json() for t in study.front().trials] == [t.to_json() for t in read_study(finished).front().trials]
    with pytest.raises(StorageInternalError):
        study.optuna.set_user_attr("anything", 1)
    result = CliRunner().invoke(app, ["trials", str(folder)])
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 13), result.output
    assert contents(folder) == before


@pytest.mark.usefixtures("unwritable")
def test_what_another_process_writes_meanwhile_is_seen(folder: Path) -> None:
    study = read_study(folder)
    assert len(study.optuna.get_trials()) == 12
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute(ADD)
        other.commit()
        assert (folder / "study.db-wal").exists()
        assert len(study.optuna.get_trials()) == 13
        assert len(read_study(folder).optuna.get_trials()) == 13
    assert len(study.optuna.get_trials()) == 13


def test_reading_writes_nothing_where_it_could(folder: Path) -> None:
    read_study(folder)  # turns the copy to WAL
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as other:
        version = other.execute("PRAGMA data_version").fetchone()
        assert len(read_study(folder).front()) > 0
        assert other.execute("PRAGMA data_version").fetchone() == version


@pytest.mark.usefixtures("unwritable")
def test_a_dashboard_shows_it_as_it_was_left(folder: Path) -> None:
    before = set(contents(folder))
    (folder / "artifacts").touch()  # in the place of a folder that cannot be made
    with dashboard(read_study(folder)) as running:
        assert not running.busy
    assert set(contents(folder)) == before | {"artifacts"}


@pytest.mark.usefixtures("unwritable")
def test_what_would_write_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(
        ResourceError, match=r"cannot write into the study .*: Permission denied. Reading commands work"
    ):
        store.folder_lock(folder).__enter__()


@pytest.mark.usefixtures("unwritable")
def test_planning_a_verification_opens_the_study_to_read_it(folder: Path) -> None:
    from autodistill.delivery.verify.prepare import opened

    before = contents(folder)
    with pytest.raises(UsageError, match="names no data"):
        opened(folder)
    assert contents(folder) == before


def test_a_log_without_its_index_needs_a_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(_path: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    monkeypatch.setattr(store, "open_to_read", unable)
    with pytest.raises(ResourceError, match=r"unable to open database file\. Copy the study to where you may write"):
        read_study(folder)
