"""A study's Optuna storage and the folder around it, the only persistent state of a study.

Only the driver writes, holding a lock on the folder; all other processes read. SQLite runs in WAL mode with a long busy
timeout, since with Optuna's default (rollback journal, 5 s) a single slow reader makes writes fail. Rung values are
user attributes, because Optuna does not support intermediate values in multi-objective studies.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import socket
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from autodistill.core.database_url import StorageUrl
from autodistill.core.errors import ResourceError, StoreError, StudyInUseError, UsageError
from autodistill.core.records import Objective
from autodistill.search.storage.backups import BACKUP as BACKUP
from autodistill.search.storage.backups import DATABASE as DATABASE
from autodistill.search.storage.backups import STUDY_FILE as STUDY_FILE
from autodistill.search.storage.backups import (
    backup,
    check_not_lost,
    damaged,
    how_to_restore,
    open_sqlite,
    open_to_read,
)
from autodistill.search.storage.results_file import RESULTS, last_results
from autodistill.search.storage.salvage import ENDED, has_ended

CONFIGURATION = "configuration"
"""Attribute of a study: its configuration when it was made, which the study file in its folder is compared with."""


def open_storage(directory: Path | None, url: StorageUrl | None = None) -> BaseStorage:
    """Open the storage in ``directory`` (created if absent), at the database ``url`` if given, or in memory.

    Raises:
        StoreError: the file exists but is not a healthy SQLite database, or it is missing while a backup of it exists.
        ResourceError: the folder cannot be written, or the database cannot be reached.
    """
    if url is not None:
        from autodistill.search.storage.database import open_database

        return open_database(url)
    if directory is None:
        return InMemoryStorage()
    path = directory / DATABASE
    check_not_lost(path)
    prepare_sqlite(path)
    lost = lost_trials(directory)
    if lost:
        raise StoreError(lost)
    return _connect(path)


_UPSERT = sqlalchemy.text(
    "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
    "SELECT trial_id, :key, :value FROM trials WHERE trial_id = :trial AND state IN ('RUNNING', 'WAITING') "
    "ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json"
)
_STUDY_UPSERT = sqlalchemy.text(
    "INSERT INTO study_user_attributes (study_id, key, value_json) "
    "SELECT study_id, :key, :value FROM studies WHERE study_id = :study "
    "ON CONFLICT (study_id, key) DO UPDATE SET value_json = excluded.value_json"
)
_SYSTEM_UPSERT = sqlalchemy.text(_STUDY_UPSERT.text.replace("user", "system"))
_WAITING = sqlalchemy.text("SELECT COUNT(*) FROM trials WHERE study_id = :study AND state = 'WAITING'")
_PARAMETERS = sqlalchemy.text(
    "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
    "VALUES (:trial, :name, :value, :distribution)"
)


class FileStorage(RDBStorage):
    """Optuna's storage in an SQLite file, with the most frequent writes of a study as single statements.

    Before each attribute, Optuna reads the trial as an object, which takes four times as long as the write; with each
    parameter it looks for an earlier trial. If a statement fails (another schema), Optuna's own method is used.
    """

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial in two transactions; a process that dies between them leaves a trial without a candidate."""
        if template_trial is None or not _is_bare(template_trial):
            return super().create_new_trial(study_id, template_trial)
        trial = super().create_new_trial(study_id)
        self.set_trial_params(trial, template_trial.params, template_trial.distributions)
        return trial

    def set_trial_params(
        self, trial: int, params: Mapping[str, Any], kinds: Mapping[str, optuna.distributions.BaseDistribution]
    ) -> None:
        """Write all parameters of a trial that has none, in one transaction."""
        values = {name: kinds[name].to_internal_repr(value) for name, value in params.items()}
        rows = [
            {"trial": trial, "name": name, "value": value, "distribution": distribution_to_json(kinds[name])}
            for name, value in values.items()
        ]
        try:
            with self.engine.begin() as connection:
                connection.execute(_PARAMETERS, rows)
        except sqlalchemy.exc.SQLAlchemyError:
            for name, value in values.items():
                self.set_trial_param(trial, name, value, kinds[name])

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write an attribute of a study in one statement."""
        if not self._upsert(_STUDY_UPSERT, study_id, key, value):
            super().set_study_user_attr(study_id, key, value)

    def set_both(self, trial_id: int, key: str, value: Any, study_id: int, study_key: str, study_value: Any) -> bool:
        """Write an attribute of a trial and one of its study in one transaction; return whether that was possible."""
        own = {"trial": trial_id, "key": key, "value": json.dumps(value)}
        shared = {"study": study_id, "key": study_key, "value": json.dumps(study_value)}
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), self.engine.begin() as connection:
            if connection.execute(_UPSERT, own).rowcount == connection.execute(_STUDY_UPSERT, shared).rowcount == 1:
                return True
            connection.rollback()
        return False

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write an internal attribute of a study in one statement."""
        if not self._upsert(_SYSTEM_UPSERT, study_id, key, value):
            super().set_study_system_attr(study_id, key, value)

    def _upsert(self, statement: sqlalchemy.TextClause, study_id: int, key: str, value: Any) -> bool:
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), self.engine.begin() as connection:
            row = {"study": study_id, "key": key, "value": json.dumps(value)}
            return bool(connection.execute(statement, row).rowcount == 1)
        return False

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write an attribute of a trial in one statement."""
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), self.engine.begin() as connection:
            row = {"trial": trial_id, "key": key, "value": json.dumps(value)}
            if connection.execute(_UPSERT, row).rowcount == 1:
                return
        super().set_trial_user_attr(trial_id, key, value)  # the trial has ended or is unknown, or another schema


def waiting(study: optuna.Study) -> int:
    """Return the number of enqueued trials; other processes may have added some."""
    storage = getattr(study._storage, "_backend", study._storage)  # Optuna wraps a database in a cache
    if isinstance(storage, FileStorage):
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), storage.engine.connect() as connection:
            return int(connection.execute(_WAITING, {"study": study._study_id}).scalar_one())
    return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def _is_bare(trial: FrozenTrial) -> bool:
    """Return whether a new trial is open and has nothing but parameters."""
    more = (trial.values, trial.user_attrs, trial.system_attrs, trial.intermediate_values)
    return trial.state is TrialState.RUNNING and bool(trial.params) and not any(more)


def load_or_create(storage: BaseStorage, name: str, objectives: Sequence[Objective]) -> optuna.Study:
    """Load the study called ``name``, or create it; an existing study is changed only if its metric names differ.

    Raises:
        StoreError: one of its attributes is damaged.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
        study.user_attrs  # noqa: B018 - reads them all
    except json.JSONDecodeError as error:
        raise damaged(f"an attribute of study {name}", error) from error
    except KeyError:
        directions = [o.direction for o in objectives]
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    names = [o.name for o in objectives]
    with warnings.catch_warnings():  # metric names, experimental since Optuna 3.2, label the dashboard's axes
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if study.metric_names != names:
            study.set_metric_names(names)
    return study


def _connect(path: Path) -> RDBStorage:
    """Connect to a database with a busy timeout of a minute and one sync per WAL checkpoint instead of one per commit.

    A process that dies loses nothing. After a power failure the last trials may be missing and resume from their
    checkpoints. The database stays consistent in both cases.
    """
    storage = _make_tables(
        lambda: FileStorage(_url(path), {"creator": functools.partial(open_sqlite, path.absolute())})
    )

    def relax(connection: sqlite3.Connection, record: object) -> None:
        del record
        connection.execute("PRAGMA synchronous=NORMAL")

    sqlalchemy.event.listen(storage.engine, "connect", relax)
    storage.engine.dispose()  # earlier connections do not have the setting
    return storage


def _make_tables(open_: Callable[[], FileStorage]) -> FileStorage:
    """Open a database and make its tables, where another process may make them between the look and the making."""
    for pause in (0.1, 1.0):
        try:
            return open_()
        except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.IntegrityError) as error:
            if not any(words in str(error) for words in ("already exists", "UNIQUE constraint")):
                raise
            time.sleep(pause)
    return open_()


def _read_only(path: Path) -> RDBStorage:
    """Connect to a database in a folder that cannot be written.

    Every use opens its own connection, since another process with write access may start or end a search at any time.
    """
    kwargs = {"creator": functools.partial(open_to_read, path.absolute()), "poolclass": sqlalchemy.NullPool}
    return RDBStorage(_url(path), engine_kwargs=kwargs, skip_table_creation=True)


def _url(path: Path) -> str:
    """Return the address of a database for messages; connections open the path itself.

    SQLAlchemy cuts an address at ``?`` and decodes ``%xx``, and Optuna fills in ``{x}``: a path is not safe in one.
    """
    return f"sqlite:///{quote(str(path.absolute()))}"


def _writable(path: Path) -> bool:
    """Return whether a database can be written, including the files that SQLite puts beside it."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def prepare_sqlite(path: Path, *, read: bool = False) -> None:
    """Switch a database to WAL, unless it is only ``read``, and check its pages.

    Raises:
        StoreError: the database is damaged.
        ResourceError: the database cannot be opened.
    """
    try:
        with contextlib.closing(open_to_read(path) if read else open_sqlite(path)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if not read:
                connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            advice = "Copy the study to where you may write" if read else "Check that the folder can be written"
            raise ResourceError(f"cannot open {path}: {error}. {advice}.") from error
        raise StoreError(f"{path} is not a healthy database: {error}. {how_to_restore(path)}") from error
    if found != "ok":
        raise StoreError(f"{path} is damaged: {found}. {how_to_restore(path)}")


def lost_trials(directory: Path) -> str:
    """Return a message if the database lacks a result that the results file has; empty if it does not.

    This happens if its write-ahead log is removed, or an older copy is put in its place.
    """
    facts = next(last_results(directory), None)
    path = directory / DATABASE
    if facts is None or not path.is_file():
        return ""
    with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(open_to_read(path)) as connection:
        rows = connection.execute("SELECT state FROM trials WHERE number = ?", (facts["number"],)).fetchall()
        there = [state for (state,) in rows if not has_ended(facts) or state in ENDED]
        if not there:
            return (
                f"{path} lacks results that {directory / RESULTS} has, such as that of trial {facts['number']}: the "
                f"files beside it were removed, or it was replaced by an older copy. {how_to_restore(path)}"
            )
    return ""


def stored_configuration(directory: Path) -> Any:
    """Return the configuration that the trials in a folder's database were run under; ``None`` where none is stored.

    It is read without Optuna, which would make tables. A database that cannot be read is reported when it is opened.
    """
    path = directory / DATABASE
    if not path.is_file():
        return None
    with contextlib.suppress(sqlite3.DatabaseError, ValueError), contextlib.closing(open_to_read(path)) as connection:
        found = connection.execute("SELECT value_json FROM study_user_attributes WHERE key = ?", (CONFIGURATION,))
        rows = found.fetchall()
        return json.loads(rows[0][0]) if rows else None
    return None


def has_trials(directory: Path) -> bool:
    """Whether a folder's database holds a trial; false where there is no database of a study."""
    path = directory / DATABASE
    if not path.is_file():
        return False
    with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(open_sqlite(path)) as connection:
        return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM trials)").fetchone()[0])
    return False


@contextlib.contextmanager
def only_driver(directory: Path | None, storage: BaseStorage, name: str) -> Iterator[None]:
    """Lock a study as its only driver: its folder, and its entry in a database server.

    Raises:
        StudyInUseError: another driver holds it.
    """
    with contextlib.ExitStack() as held:
        if directory is not None:
            held.enter_context(folder_lock(directory))
            backup(directory)
        hold = getattr(storage, "only_writer", None)  # defined in database.py, which is not imported for SQLite
        if hold is not None:
            held.enter_context(hold(name))
        yield


@contextlib.contextmanager
def folder_lock(directory: Path) -> Iterator[None]:
    """Lock the folder as its only driver; the kernel releases the lock when the process ends in any way.

    Raises:
        StudyInUseError: another driver holds it.
        ResourceError: the folder cannot be written.
    """
    try:
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ResourceError(
            f"cannot write into the study {directory}: {error.strerror}. Reading commands work; for others copy it to "
            "where you may write."
        ) from error
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


def set_system_attributes(storage: BaseStorage, study_id: int, values: Mapping[str, Any]) -> None:
    """Write many system attributes of a study, in one transaction if the storage is SQLite, else one by one.

    Optuna's own method uses a transaction for each, which takes a minute for the notes of a thousand trials.
    """
    from optuna.storages._rdb.models import StudySystemAttributeModel

    backend = getattr(storage, "_backend", storage)  # Optuna's cache does not cache these attributes
    if not isinstance(backend, RDBStorage) or backend.engine.dialect.name != "sqlite":
        for key, value in values.items():
            storage.set_study_system_attr(study_id, key, value)
        return
    table: Any = StudySystemAttributeModel.__table__
    rows = [{"owner": study_id, "name": key, "text": json.dumps(value)} for key, value in values.items()]
    owner: Any = sqlalchemy.bindparam("owner")
    name: Any = sqlalchemy.bindparam("name")
    text: Any = sqlalchemy.bindparam("text")
    with backend.engine.begin() as connection:
        known = set(connection.scalars(sqlalchemy.select(table.c.key).where(table.c.study_id == study_id)))
        fresh, old = ([row for row in rows if (row["name"] in known) is stored] for stored in (False, True))
        if fresh:
            connection.execute(sqlalchemy.insert(table).values(study_id=owner, key=name, value_json=text), fresh)
        if old:
            found = (table.c.study_id == owner) & (table.c.key == name)
            connection.execute(sqlalchemy.update(table).where(found).values(value_json=text), old)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file atomically: readers see the old text or the new one, never a part."""
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
    """Create a study's folder, private to the user.

    Raises:
        UsageError: no permission, the path is a file, or the folder contains something other than a study.
        StoreError: it contains a study whose database is missing.
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
    if others and not is_study(directory):
        check_not_lost(directory / DATABASE)
        raise UsageError(
            f"{directory} is not a study and not empty (it holds {', '.join(others[:3])}). Choose a new folder."
        )


def is_study(directory: Path) -> bool:
    """Return whether a folder contains a study: its database, or a study file that names a database elsewhere."""
    return (directory / DATABASE).is_file() or database_of(directory) is not None


def database_of(directory: Path) -> StorageUrl | None:
    """Return the address of the database server of a folder's study; ``None`` for SQLite or if there is no study."""
    path = directory / STUDY_FILE
    if not path.is_file():
        return None
    from autodistill.core import strict_yaml

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StoreError(f"{path} is damaged: it is no text ({error.reason}). Put a copy in its place.") from None
    keys = strict_yaml.load(text, str(path))[0]
    place = keys.get("storage") if isinstance(keys, dict) else None
    return StorageUrl.parse(place) if isinstance(place, str) else None


def read_folder(directory: Path) -> RDBStorage:
    """Open the storage of an existing study for reading; the folder may be read-only.

    Raises:
        UsageError: the folder is not a study.
        ResourceError: its database cannot be reached.
    """
    url = database_of(directory)
    if url is not None:
        from autodistill.search.storage.database import open_database

        return open_database(url)
    path = directory / DATABASE
    if not path.is_file():
        what = "does not exist" if not directory.exists() else f"has no {DATABASE}"
        raise UsageError(
            f"{directory} is not a study: it {what}. Give the folder that 'autodistill search --dir' made."
        )
    check_not_lost(path)
    read = not _writable(path)
    prepare_sqlite(path, read=read)
    lost = lost_trials(directory)
    if lost:
        warnings.warn(lost, stacklevel=2)
    return _read_only(path) if read else _connect(path)


def dump_json(value: Any) -> str:
    """Return JSON in the format of every file of a study: indented, stable order; NaN raises ``ValueError``."""
    return json.dumps(value, indent=2, allow_nan=False, default=list) + "\n"
