"""A driver's lock on a study in a database: an advisory lock that ends with the driver's connection."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy

from autodistill.core.errors import StudyInUseError, first_line


class ConnectionLostError(Exception):
    """The server does not answer, or has closed the connection; the call can be repeated once it answers."""


def translate_errors(engine: sqlalchemy.Engine) -> None:
    """Raise :class:`ConnectionLostError` for lost connections of ``engine``; Optuna does not wrap or retry it."""
    sqlalchemy.event.listen(engine, "handle_error", _translate)


def _translate(context: Any) -> None:
    if context.is_pre_ping:
        return  # the pool reconnects by itself
    no_connection = context.connection is None and isinstance(
        context.sqlalchemy_exception, sqlalchemy.exc.OperationalError
    )
    if context.is_disconnect or no_connection:
        raise ConnectionLostError(database_reason(context.original_exception))


def database_reason(error: BaseException) -> str:
    """Return the first line of a database's error, which names host and user but never the password."""
    return first_line(error, limit=None).rstrip(".")


def application_name(token: str = "-") -> str:
    """Return the name of a connection of this process in PostgreSQL's list, which truncates it to 63 bytes."""
    return f"autodistill {token} process {os.getpid()} on {socket.gethostname()[:24]}"


class DatabaseLock:
    """Lock of one study, held by its own connection.

    Args:
        url: address of the database, as for SQLAlchemy.
        options: keywords of the driver's ``connect``.
        place: address of the database for messages.
        study: name of the study in the database.
    """

    def __init__(self, url: str, options: Mapping[str, Any], *, place: str, study: str) -> None:
        self._token = uuid.uuid4().hex[:8]  # identifies a broken connection of this lock that the server still lists
        own = {"application_name": application_name(self._token)} if "application_name" in options else {}
        self._engine = sqlalchemy.create_engine(
            url, poolclass=sqlalchemy.NullPool, connect_args={**options, **own}, isolation_level="AUTOCOMMIT"
        )
        translate_errors(self._engine)
        self._place, self._study = place, study
        self._postgres = self._engine.dialect.name == "postgresql"
        self._connection: sqlalchemy.Connection | None = None
        digest = hashlib.sha256(f"autodistill:{study}".encode()).digest()
        self._number = int.from_bytes(digest[:8], "big", signed=True)
        self._name = f"autodistill:{digest.hex()[:32]}"  # names of MySQL's locks have at most 64 characters

    def acquire(self, *, again: bool = False) -> None:
        """Take the lock.

        Args:
            again: the lock was held before; if a connection of this lock still holds it, that connection is broken.

        Raises:
            StudyInUseError: another driver holds it.
        """
        connection = self._engine.connect()
        try:
            owner = self._try(connection, again)
            if owner is not None:
                raise StudyInUseError(
                    f"study {self._study} in {self._place} is in use by {owner}. Wait for it or stop it; reading "
                    "commands work meanwhile."
                )
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def renew(self) -> None:
        """Check that the lock is held, and take it again if not: a restarted server has lost it.

        Raises:
            StudyInUseError: another driver has taken it since.
        """
        if self._connection is not None:
            try:
                self._connection.scalar(sqlalchemy.text("SELECT 1"))
                return
            except ConnectionLostError:
                self._drop()
        self.acquire(again=True)

    def release(self) -> None:
        """Release the lock."""
        self._drop()
        self._engine.dispose()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(ConnectionLostError, sqlalchemy.exc.SQLAlchemyError):
                connection.close()

    def _try(self, connection: sqlalchemy.Connection, again: bool) -> str | None:
        """Try to take the lock on ``connection``; return the owner if another connection holds it."""
        if not self._postgres:
            got = connection.scalar(sqlalchemy.text("SELECT GET_LOCK(:name, 0)"), {"name": self._name})
            return None if got == 1 else "another process"
        for attempt in range(2):
            taken = sqlalchemy.text("SELECT pg_try_advisory_lock(:number)")
            if connection.scalar(taken, {"number": self._number}):
                return None
            pid, name = self._holder(connection)
            if attempt or not again or pid is None or f" {self._token} " not in name:
                break
            end = sqlalchemy.text("SELECT pg_terminate_backend(:pid, 5000)")
            connection.scalar(end, {"pid": pid})
        return name.replace("autodistill ", "", 1).partition(" ")[2] or "another process"

    def _holder(self, connection: sqlalchemy.Connection) -> tuple[int | None, str]:
        """Return process number and application name of the server connection that holds the lock."""
        number = self._number % 2**64
        found = connection.execute(
            sqlalchemy.text(
                "SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
                "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
                "AND l.classid = CAST(:high AS bigint)::oid AND l.objid = CAST(:low AS bigint)::oid "
                "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ),
            {"high": number >> 32, "low": number & 0xFFFFFFFF},
        ).first()
        return (None, "") if found is None else (int(found[0]), str(found[1] or ""))
