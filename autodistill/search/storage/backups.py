"""Copies of a study's SQLite database: made when a run starts, kept, and never replaced by one with fewer trials."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

from autodistill.core.errors import ResourceError, StoreError

DATABASE = "study.db"
BACKUP = "study.db.backup"
"""The copy with the most trials; an earlier one that it replaced is ``study.db.backup-<date>``."""

STUDY_FILE = "study.yaml"
KEPT = 3
"""Number of dated copies that are kept."""

_LEFTOVER = re.compile(
    r"\.[a-z_]+\.(yaml|json|csv|html)\.[a-z0-9_]{8}"
)  # as tempfile.mkstemp names what is written before it is renamed
_OLD_SECONDS, _YOUNG_SECONDS = 3600.0, 10.0


def open_sqlite(path: Path) -> sqlite3.Connection:
    """Open a connection that threads may share, with a busy timeout of a minute.

    The path is made absolute because SQLite may read a relative one that begins with ``file:`` as a URL.
    """
    return sqlite3.connect(path.absolute(), timeout=60, check_same_thread=False)


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a connection that writes no file; without a write-ahead log no process has the database open."""
    log = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=60, check_same_thread=False)


def count_trials(path: Path) -> int | None:
    """Return the number of trials in a copy; ``None`` where it is missing, empty or damaged."""
    if not path.is_file() or not path.stat().st_size:
        return None
    copy = f"{path.absolute().as_uri()}?mode=ro&immutable=1"  # makes no file beside it
    with (
        contextlib.suppress(sqlite3.DatabaseError),
        contextlib.closing(sqlite3.connect(copy, uri=True)) as connection,
    ):
        return int(connection.execute("SELECT count(*) FROM trials").fetchone()[0])
    return None


def best_copy(directory: Path) -> Path | None:
    """Return the copy in a folder with the most trials, the newest of several; ``None`` where none has any."""
    found = [(count_trials(path) or 0, path.stat().st_mtime, path) for path in copies(directory)]
    most = max(found, default=(0, 0.0, None))
    return most[2] if most[0] else None


def how_to_restore(path: Path) -> str:
    """Say how a database that is lost or damaged is replaced by a copy."""
    where = shlex.quote(str(path.parent))
    return f"'autodistill repair {where}' rebuilds it from its copies and result files, and says what is lost."


def damaged(what: str, cause: Exception) -> StoreError:
    """Return the error for a stored value that is none: the database is whole, and what is in it is not ours."""
    said = f"{type(cause).__name__}: {cause}".partition("\n")[0]
    return StoreError(
        f"{what} in the database is damaged ({said}). 'autodistill repair DIR' rebuilds a study in a folder from its "
        "copies and result files."
    )


def check_not_lost(path: Path) -> None:
    """Refuse to begin anew where a study was.

    Raises:
        StoreError: the database is missing or has no table, while the folder has a copy with trials or a study file.
    """
    if _has_tables(path):
        return
    there = path.exists()
    if best_copy(path.parent) is None and not (there and (path.parent / STUDY_FILE).is_file()):
        return
    what = "is empty, although a study was in it" if there else "is missing, although the study had trials"
    raise StoreError(f"{path} {what}. {how_to_restore(path)} To begin anew, take another folder.")


def backup(directory: Path) -> None:
    """Copy a folder's database, which has just been checked, before another run adds to it.

    Raises:
        ResourceError: there is no room for the copy.
    """
    path = directory / DATABASE
    remove_leftovers(directory)
    if not path.is_file():
        return
    handle, name = tempfile.mkstemp(dir=directory, prefix=f".{BACKUP}.")
    os.close(handle)
    try:
        closing = contextlib.closing
        with closing(open_sqlite(path)) as source, closing(open_sqlite(Path(name))) as target:
            source.backup(target)
        _put(Path(name), directory / BACKUP)
    except (OSError, sqlite3.OperationalError) as error:
        raise ResourceError(f"cannot write {directory / BACKUP}: {error}. Free space on this disk.") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def remove_leftovers(directory: Path) -> None:
    """Remove files that a killed process was writing: copies, which only the holder of the lock makes, and old ones."""
    now = time.time()
    for path in directory.glob("checkpoints/trial-*/.*-*"):  # folders that a training was writing
        with contextlib.suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink() and now - path.stat().st_mtime > _YOUNG_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
    with os.scandir(directory) as entries:
        found = [one for one in entries if one.name.startswith(".")]
    for one in found:
        if one.is_dir(follow_symlinks=False):
            if one.name.startswith(".repair-"):
                shutil.rmtree(one.path, ignore_errors=True)
            continue
        copy = one.name.startswith(f".{BACKUP}.")
        with contextlib.suppress(FileNotFoundError):
            old = now - one.stat(follow_symlinks=False).st_mtime > _OLD_SECONDS
            if copy or (old and _LEFTOVER.fullmatch(one.name)):
                os.unlink(one.path)


def _put(fresh: Path, place: Path) -> None:
    """Make a copy the newest one; one with fewer trials than that gets a dated name instead."""
    before, now = count_trials(place), count_trials(fresh) or 0
    if before is not None and now < before:
        os.replace(fresh, _dated(place, time.time()))
    else:
        if before and now > before:
            os.replace(place, _dated(place, place.stat().st_mtime))
        os.replace(fresh, place)
    dated = sorted(path for path in copies(place.parent) if path != place)
    for path in dated[:-KEPT]:
        path.unlink(missing_ok=True)


def _dated(place: Path, seconds: float) -> Path:
    """Return a name with a date (UTC) that no copy has yet."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
    path, count = place.with_name(f"{place.name}-{stamp}"), 1
    while path.exists():
        path, count = place.with_name(f"{place.name}-{stamp}-{count}"), count + 1
    return path


def copies(directory: Path) -> list[Path]:
    """Return the copies of a folder's database."""
    if not directory.is_dir():
        return []
    pattern = re.compile(rf"{re.escape(BACKUP)}(-\d{{8}}T\d{{6}}(-\d+)?)?")
    return [path for path in directory.iterdir() if pattern.fullmatch(path.name)]


def _has_tables(path: Path) -> bool:
    """Whether a database has the tables of studies; true of one that cannot be read, which is checked elsewhere."""
    if not path.is_file() or not path.stat().st_size:
        return False
    try:
        with contextlib.closing(open_to_read(path)) as connection:
            query = "SELECT count(*) FROM sqlite_master WHERE name = 'trials'"
            return bool(connection.execute(query).fetchone()[0])
    except sqlite3.DatabaseError:
        return True
