"""Locks on rows of a file, visible to all processes and released by the kernel when their owner dies.

A lock is a byte range of an otherwise empty file, so a million rows do not need a million files. On Linux the locks
belong to the open file (``F_OFD_SETLK``), so they also work between two caches of one process. Elsewhere they belong to
the process (POSIX), and only the caller's mutex separates threads.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path


class RowLocks:
    """Exclusive locks by row number.

    Args:
        path: the lock file, created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._process = self._open(), os.getpid()

    def try_acquire(self, rows: Iterable[int]) -> list[int]:
        """Lock those of ``rows`` that are free, without waiting; return the locked rows."""
        return [row for row in rows if self._lock(row, wait=False)]

    def acquire(self, row: int) -> None:
        """Lock ``row``, waiting until it is free; the caller must hold no other row, to avoid a deadlock."""
        self._lock(row, wait=True)

    def release_all(self) -> None:
        """Release all rows."""
        self._call(fcntl.F_UNLCK, 0, 0, wait=False)

    def close(self) -> None:
        """Release all rows and close the file."""
        os.close(self._file)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def _lock(self, row: int, wait: bool) -> bool:
        try:
            self._call(fcntl.F_WRLCK, row, 1, wait)
        except (BlockingIOError, PermissionError):  # POSIX allows both errors
            return False
        return True

    def _call(self, kind: int, start: int, length: int, wait: bool) -> None:
        if os.getpid() != self._process:  # a forked child would share its parent's open file and locks
            self._file, self._process = self._open(), os.getpid()
        if sys.platform == "linux":
            command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
            # struct flock: type, whence, start, length, process (0 for open-file locks)
            fcntl.fcntl(self._file, command, struct.pack("hhqqi", kind, os.SEEK_SET, start, length, 0))
        else:
            operation = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX
            fcntl.lockf(self._file, operation | (0 if wait else fcntl.LOCK_NB), length, start)
