"""The only memory of a study: an Optuna storage, and the folder around it.

Only the driver writes, under a lock on the folder; everyone else reads. SQLite runs in WAL mode with a long busy
timeout, since Optuna's default (rollback journal, 5 s) loses writes to a single slow reader. Rung values are user
attributes: Optuna refuses intermediate values in multi-objective studies.
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

CONFIGURATION = "configuration"
"""Attribute of a study: its configuration when it was made, which the study file in its folder is compared with."""


def open_storage(directory: Path | None, url: StorageUrl | None = None) -> BaseStorage:
    """The storage in ``directory`` (made when absent), at a database's ``url`` where one is given, or in memory.

    Raises:
        StoreError: the file is there but is no healthy SQLite database, or it is lost while a copy of it is there.
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
_WAITING = sqlalchemy.text("SELECT COUNT(*) FROM trials WHERE study_id = :study AND state = 'WAITING'")
_PARAMETERS = sqlalchemy.text(
    "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
    "VALUES (:trial, :name, :value, :distribution)"
)


class FileStorage(RDBStorage):
    """Optuna's storage in an SQLite file; what a study writes most goes in one statement.

    Optuna reads the trial as an object before each attribute, which takes four times as long as the write, and looks
    for an earlier trial with each parameter. Where a statement fails (another schema), Optuna's own way is taken.
    """

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna's, in two transactions: a process that dies between them leaves a trial without a candidate."""
        if template_trial is None or not _is_bare(template_trial):
            return super().create_new_trial(study_id, template_trial)
        trial = super().create_new_trial(study_id)
        kinds = template_trial.distributions
        values = {name: kinds[name].to_internal_repr(value) for name, value in template_trial.params.items()}
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
        return trial

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), self.engine.begin() as connection:
            row = {"study": study_id, "key": key, "value": json.dumps(value)}
            if connection.execute(_STUDY_UPSERT, row).rowcount == 1:
                return
        super().set_study_user_attr(study_id, key, value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), self.engine.begin() as connection:
            row = {"trial": trial_id, "key": key, "value": json.dumps(value)}
            if connection.execute(_UPSERT, row).rowcount == 1:
                return
        super().set_trial_user_attr(trial_id, key, value)  # it is finished or unknown, or the schema is another


def waiting(study: optuna.Study) -> int:
    """How many trials are enqueued; anybody may have added some."""
    storage = getattr(study._storage, "_backend", study._storage)  # Optuna puts a cache before a database
    if isinstance(storage, FileStorage):
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), storage.engine.connect() as connection:
            return int(connection.execute(_WAITING, {"study": study._study_id}).scalar_one())
    return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def _is_bare(trial: FrozenTrial) -> bool:
    """Whether a new trial is open and has parameters and nothing else."""
    more = (trial.values, trial.user_attrs, trial.system_attrs, trial.intermediate_values)
    return trial.state is TrialState.RUNNING and bool(trial.params) and not any(more)


def load_or_create(storage: BaseStorage, name: str, objectives: Sequence[Objective]) -> optuna.Study:
    """The study called ``name`` in ``storage``; nothing is written where it is there.

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
    with warnings.catch_warnings():  # experimental since 3.2; it is what names the axes in the dashboard
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if study.metric_names != names:
            study.set_metric_names(names)
    return study


def _connect(path: Path) -> RDBStorage:
    """Optuna's storage with a busy timeout of a minute, and one sync per WAL checkpoint in place of one per commit.

    A process that dies loses nothing; after a power cut the last trials may be missing, and are taken up again from
    their checkpoints. The database stays whole either way.
    """
    storage = _make_tables(
        lambda: FileStorage(_url(path), {"creator": functools.partial(open_sqlite, path.absolute())})
    )

    def relax(connection: sqlite3.Connection, record: object) -> None:
        del record
        connection.execute("PRAGMA synchronous=NORMAL")

    sqlalchemy.event.listen(storage.engine, "connect", relax)
    storage.engine.dispose()  # connections made so far do not have it
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
    """Optuna's storage of a database in a folder that cannot be written.

    Every use has a connection of its own, since another process, which may write, can begin or end a search meanwhile.
    """
    kwargs = {"creator": functools.partial(open_to_read, path.absolute()), "poolclass": sqlalchemy.NullPool}
    return RDBStorage(_url(path), engine_kwargs=kwargs, skip_table_creation=True)


def _url(path: Path) -> str:
    """Return the address of a database for messages; connections open the path itself.

    SQLAlchemy cuts an address at ``?`` and decodes ``%xx``, and Optuna fills in ``{x}``: a path is not safe in one.
    """
    return f"sqlite:///{quote(str(path.absolute()))}"


def _writable(path: Path) -> bool:
    """Whether a database can be written, and the files that SQLite puts beside it."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def prepare_sqlite(path: Path, *, read: bool = False) -> None:
    """Switch a database to WAL, unless it can only be ``read``, and check its pages.

    Raises:
        StoreError: it is damaged.
        ResourceError: it cannot be opened.
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
    """Hold a study as its only driver: its folder, and its place in a database server.

    Raises:
        StudyInUseError: another driver holds it.
    """
    with contextlib.ExitStack() as held:
        if directory is not None:
            held.enter_context(folder_lock(directory))
            backup(directory)
        hold = getattr(storage, "only_writer", None)  # of database.py, which is not loaded for SQLite
        if hold is not None:
            held.enter_context(hold(name))
        yield


@contextlib.contextmanager
def folder_lock(directory: Path) -> Iterator[None]:
    """Hold the folder as its only driver; the kernel frees the lock when the process dies, however it dies.

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
    """Write many of a study's system attributes: in one transaction where SQLite keeps them, else one by one.

    Optuna's own call makes a transaction of each, which takes a minute for the notes of a thousand trials.
    """
    from optuna.storages._rdb.models import StudySystemAttributeModel

    backend = getattr(storage, "_backend", storage)  # behind Optuna's cache, which does not keep these attributes
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
        StoreError: it holds a study whose database is missing.
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
    """Whether a folder holds a study: its database, or the study file that names a database elsewhere."""
    return (directory / DATABASE).is_file() or database_of(directory) is not None


def database_of(directory: Path) -> StorageUrl | None:
    """The database server that a folder's study keeps its trials in; ``None`` for SQLite, and where there is none."""
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
    """The storage of an existing study, for reading; the folder may be one that cannot be written.

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
    return _read_only(path) if read else _connect(path)


def dump_json(value: Any) -> str:
    """JSON as every file of a study has it: indented, stable order, NaN refused."""
    return json.dumps(value, indent=2, allow_nan=False, default=list) + "\n"
