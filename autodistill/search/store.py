"""The only memory of a study: an Optuna storage, and the folder around it.

Only the driver writes, under a lock on the folder; everyone else reads. SQLite runs in WAL mode with a long busy
timeout, since Optuna's default (rollback journal, 5 s) loses writes to a single slow reader. Rung values are user
attributes: Optuna refuses intermediate values in multi-objective studies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage

from autodistill.errors import ResourceError, StoreError, StudyInUseError, UsageError

DATABASE = "study.db"


def open_storage(directory: Path | None) -> BaseStorage:
    """The storage in ``directory`` (made when absent), or one in memory.

    Raises:
        StoreError: the file is there but is no healthy SQLite database.
        ResourceError: the folder cannot be written.
    """
    if directory is None:
        return InMemoryStorage()
    path = directory / DATABASE
    prepare_sqlite(path)
    return _connect(path)


def _connect(path: Path) -> RDBStorage:
    """Optuna's storage with a busy timeout of a minute, and one sync per WAL checkpoint in place of one per commit.

    A process that dies loses nothing; after a power cut the last trials may be missing, and are taken up again from
    their checkpoints. The database stays whole either way.
    """
    storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})

    def relax(connection: sqlite3.Connection, record: object) -> None:
        del record
        connection.execute("PRAGMA synchronous=NORMAL")

    sqlalchemy.event.listen(storage.engine, "connect", relax)
    storage.engine.dispose()  # connections made so far do not have it
    return storage


def prepare_sqlite(path: Path) -> None:
    """Switch a database to WAL and check its pages.

    Raises:
        StoreError: it is damaged.
        ResourceError: it cannot be opened for writing.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise ResourceError(f"cannot open {path}: {error}. Check that the folder can be written.") from error
        raise StoreError(
            f"{path} is not a healthy database: {error}. Restore a copy, or start another study."
        ) from error
    if found != "ok":
        raise StoreError(f"{path} is damaged: {found}. Restore a copy, or start another study.")


@contextlib.contextmanager
def folder_lock(directory: Path) -> Iterator[None]:
    """Hold the folder as its only driver; the kernel frees the lock when the process dies, however it dies.

    Raises:
        StudyInUseError: another driver holds it.
    """
    handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            raise StudyInUseError(
                f"study {directory} is in use by {owner}. Wait for it or stop it; reading commands work meanwhile."
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(handle)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole: readers see the old text or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def make_folder(directory: Path) -> None:
    """Make a study's folder, private to the user.

    Raises:
        UsageError: no permission, the path is a file, or the folder holds something that is not a study.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(
            f"cannot make the study folder {directory}: {error.strerror}. Choose another --dir."
        ) from error
    if not os.access(directory, os.W_OK):
        raise UsageError(f"cannot write into {directory}: no permission. Choose another --dir.")
    others = sorted(p.name for p in directory.iterdir() if p.name not in ("lock", DATABASE))
    if others and not (directory / DATABASE).exists():
        raise UsageError(
            f"{directory} is not a study and not empty (it holds {', '.join(others[:3])}). Choose a new folder."
        )


def read_folder(directory: Path) -> RDBStorage:
    """The storage of an existing study, for reading.

    Raises:
        UsageError: the folder is not a study.
    """
    path = directory / DATABASE
    if not path.is_file():
        what = "does not exist" if not directory.exists() else f"has no {DATABASE}"
        raise UsageError(
            f"{directory} is not a study: it {what}. Give the folder that 'autodistill search --dir' made."
        )
    prepare_sqlite(path)
    return _connect(path)


def dump_json(value: Any) -> str:
    """JSON as every file of a study has it: indented, stable order, NaN refused."""
    return json.dumps(value, indent=2, allow_nan=False, default=list) + "\n"
