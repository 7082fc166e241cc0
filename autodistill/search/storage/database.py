"""Studies in a database server: PostgreSQL or MySQL behind Optuna's storage, for studies that outlive a machine.

The driver is the only writer: it holds an advisory lock in the database while it runs. If the server goes away, calls
wait for it and are repeated; a write whose response was lost is not made twice. SQLite is handled in
``study_folder.py``.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from autodistill.core.database_url import PASSWORD_VARIABLE, StorageUrl
from autodistill.core.errors import ResourceError
from autodistill.search.storage.database_lock import (
    ConnectionLostError,
    DatabaseLock,
    application_name,
    database_reason,
    translate_errors,
)

RECONNECT_SECONDS = 600.0
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between attempts; the last value repeats
_CONNECT_SECONDS = 10
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}  # detect a dead connection
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def open_database(url: StorageUrl, *, patience: float = RECONNECT_SECONDS) -> DatabaseStorage:
    """Open the storage at an address; missing tables are created.

    Args:
        url: address of the database.
        patience: seconds that later calls wait for a server that went away.

    Raises:
        ResourceError: no server answers, it refuses the user, or the Python driver is missing.
    """
    try:
        return DatabaseStorage(url, patience)
    except ImportError as error:
        kind = "mysql" if url.public.startswith(("mysql", "mariadb")) else "postgresql"
        raise ResourceError(
            f"{url} needs a Python driver that is not installed: pip install 'autodistill-search[{kind}]'."
        ) from error
    except (ConnectionLostError, sqlalchemy.exc.SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise ResourceError(
            f"cannot open the database {url}: {database_reason(error)}. Check that it runs, that the database exists "
            f"and the user may enter it; a password can be given in {PASSWORD_VARIABLE}."
        ) from None


def _retried(method: Callable[..., _T]) -> Callable[..., _T]:
    """Wrap a storage method so that it waits for a server that went away, and is then called again."""

    @functools.wraps(method)
    def call(self: DatabaseStorage, *args: Any, **kwargs: Any) -> _T:
        return self._patiently(lambda: method(self, *args, **kwargs))

    return call


class DatabaseStorage(RDBStorage):
    """Optuna's storage on a server that may be restarted during a search.

    Args:
        url: address of the database.
        patience: seconds to wait for a server that went away.
    """

    def __init__(self, url: StorageUrl, patience: float) -> None:
        self.place = str(url)
        self._patience = patience
        self._newest = 0  # id of the newest known trial; a newer one comes from a call whose response was lost
        self._repeating = threading.local()
        self._locks: list[DatabaseLock] = []
        self._options: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS}
        if url.public.startswith("postgres"):
            self._options |= {"application_name": application_name(), **_KEEPALIVES}
        super().__init__(url.connectable(), {"pool_pre_ping": True, "connect_args": self._options})
        translate_errors(self.engine)
        sqlalchemy.event.listen(self.engine, "connect", _renewing(self._locks))
        weakref.finalize(self, self.engine.dispose)  # studies have no close method

    @contextlib.contextmanager
    def only_writer(self, study: str) -> Iterator[None]:
        """Lock a study of this database as its only driver, also across restarts of the server.

        Raises:
            StudyInUseError: another driver holds it.
        """
        lock = DatabaseLock(self.url, self._options, place=self.place, study=study)
        self._patiently(lock.acquire)
        self._locks.append(lock)
        try:
            yield
        finally:
            self._locks.remove(lock)
            lock.release()

    def _patiently(self, call: Callable[[], _T]) -> _T:
        started, attempt = time.monotonic(), 0
        repeated_before = getattr(self._repeating, "now", False)
        try:
            while True:
                try:
                    found = call()
                    if attempt:
                        _log.warning("the database %s answers again", self.place)
                    return found
                except ConnectionLostError as error:
                    waited = time.monotonic() - started
                    if waited > self._patience:
                        raise ResourceError(
                            f"the database {self.place} has not answered for {waited:.0f} s: {error}. Everything up to "
                            "then is stored; the same command resumes the study."
                        ) from None
                    if not attempt:
                        _log.warning(
                            "the database %s does not answer (%s); waiting up to %.0f s for it",
                            self.place,
                            error,
                            self._patience,
                        )
                except StorageInternalError as error:
                    cause = error.__cause__ or error
                    raise ResourceError(
                        f"the database {self.place} refused a call: {database_reason(cause)}."
                    ) from error
                time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
                attempt += 1
                self._repeating.now = True
        finally:
            self._repeating.now = repeated_before

    # Optuna's cache calls the methods with an underscore; all other code calls the public ones.

    @_retried
    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        if getattr(self._repeating, "now", False):
            state = TrialState.RUNNING if template_trial is None else template_trial.state
            found = super()._get_trials(study_id, (state,), set(), self._newest)
            if found:  # the first attempt was stored, only its response was lost
                self._newest = found[-1]._trial_id
                return found[-1]
        trial = super()._create_new_trial(study_id, template_trial)
        self._newest = max(self._newest, trial._trial_id)
        return trial

    @_retried
    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set a state; in a repeated call, a state that is already stored counts as set."""
        if getattr(self._repeating, "now", False) and super().get_trial(trial_id).state is state:
            return True
        return super().set_trial_state_values(trial_id, state, values)

    @_retried
    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        found = super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        self._newest = max([self._newest, *(trial._trial_id for trial in found)])
        return found

    _set_trial_param = _retried(RDBStorage._set_trial_param)
    create_new_study = _retried(RDBStorage.create_new_study)
    set_study_user_attr = _retried(RDBStorage.set_study_user_attr)
    set_study_system_attr = _retried(RDBStorage.set_study_system_attr)
    set_trial_user_attr = _retried(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = _retried(RDBStorage.set_trial_system_attr)
    get_study_id_from_name = _retried(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = _retried(RDBStorage.get_study_name_from_id)
    get_study_directions = _retried(RDBStorage.get_study_directions)
    get_study_user_attrs = _retried(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = _retried(RDBStorage.get_study_system_attrs)
    get_all_studies = _retried(RDBStorage.get_all_studies)
    get_trial_id_from_study_id_trial_number = _retried(RDBStorage.get_trial_id_from_study_id_trial_number)
    get_trial = _retried(RDBStorage.get_trial)


def _renewing(locks: Sequence[DatabaseLock]) -> Callable[[Any, Any], None]:
    """Return SQLAlchemy's hook on new connections, which renews the locks: a restarted server has lost them.

    Nothing is written before the locks are held again.
    """

    def renew(connection: Any, record: Any) -> None:
        del connection, record
        for lock in locks:
            lock.renew()

    return renew
