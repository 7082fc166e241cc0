"""What the driver itself runs out of is said as that: a full disk is no internal error and no trial's fault."""

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
    """Raise what disk, memory or permissions refused as a ``ResourceError``; every other error passes as it is.

    Args:
        what: could not be done then, in words.

    Raises:
        ResourceError: its cause is the error of the operating system, of SQLite, or of Optuna's storage above it.
    """
    try:
        yield
    except Exception as error:
        scarce = _scarce(error)
        if scarce is None:
            raise
        said = str(scarce).partition("\n")[0] or type(scarce).__name__
        raise ResourceError(
            f"{what}: {said.rstrip('.')}. What was reported until then is stored; "
            "mend this, and run the same command again."
        ) from error


def _scarce(error: BaseException | None) -> BaseException | None:
    """What refused in the chain of causes; ``None`` where nothing did."""
    while error is not None and not isinstance(error, ResourceError):
        if isinstance(error, MemoryError) or _refused(error):
            return error
        error = error.__cause__
    return None


def _refused(error: BaseException) -> bool:
    """Some libraries raise an OSError of their own that has the system's words but not its number."""
    if isinstance(error, sqlite3.OperationalError):  # a table that is missing, say, is one too
        return any(words in str(error) for words in ("disk", "readonly", "unable to open"))
    if not isinstance(error, OSError):
        return False
    return error.errno in _SCARCE or any(os.strerror(code) in str(error) for code in _SCARCE)
