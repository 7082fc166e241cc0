"""Conversion of errors about missing resources (disk, memory, permissions) in the driver to ``ResourceError``."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator

from autodistill.core.errors import ResourceError

_CODES = ("ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EIO", "ENOMEM", "EMFILE", "ENFILE", "EACCES", "EPERM")
_SCARCE = frozenset(getattr(errno, name) for name in _CODES if hasattr(errno, name))


@contextlib.contextmanager
def as_resource_error(what: str = "the search had to end") -> Iterator[None]:
    """Raise errors about disk, memory or permissions as a ``ResourceError``; pass on every other error.

    Args:
        what: Beginning of the message, e.g. ``the search had to end``.

    Raises:
        ResourceError: Its cause is an error of the operating system, of SQLite, or of Optuna's storage.
    """
    try:
        yield
    except Exception as error:
        scarce = _scarce(error)
        if scarce is None:
            raise
        reason = str(scarce).partition("\n")[0] or type(scarce).__name__
        raise ResourceError(
            f"{what}: {reason.rstrip('.')}. Everything reported before is stored; "
            "fix the problem, and run the same command again."
        ) from error


def _scarce(error: BaseException | None) -> BaseException | None:
    """Find an error about missing resources in the chain of causes; ``None`` if there is none."""
    while error is not None and not isinstance(error, ResourceError):
        if isinstance(error, MemoryError) or _refused(error):
            return error
        error = error.__cause__
    return None


def _refused(error: BaseException) -> bool:
    """Return whether the system refused an operation; some libraries raise OSError with its text but no number."""
    if isinstance(error, sqlite3.OperationalError):  # also raised for other reasons, e.g. a missing table
        return any(words in str(error) for words in ("disk", "readonly", "unable to open"))
    if not isinstance(error, OSError):
        return False
    return error.errno in _SCARCE or any(os.strerror(code) in str(error) for code in _SCARCE)
