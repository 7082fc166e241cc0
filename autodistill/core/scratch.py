"""Temporary folders that do not outlive their processes: what a killed one leaves is removed by the next search."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "autodistill-"
_LOCK = ".lock"
_YOUNG_SECONDS = 10.0  # a folder this new may not be locked yet


class ScratchFolder:
    """A temporary folder, locked while its process lives.

    Args:
        purpose: a word for its name.

    Attributes:
        path: the folder.
    """

    def __init__(self, purpose: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-"))
        self._handle = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder; a second call does nothing."""
        if self._handle >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._handle)
            self._handle = -1


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Make a temporary folder for a ``with`` block."""
    folder = ScratchFolder(purpose)
    try:
        yield folder.path
    finally:
        folder.close()


def remove_orphans() -> None:
    """Remove the folders of processes that were killed; those of living ones are locked. It never fails."""
    found: list[str] = []
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        found = [one.path for one in entries if one.name.startswith(PREFIX) and one.is_dir(follow_symlinks=False)]
    for path in found:
        with contextlib.suppress(OSError):
            facts = os.stat(path, follow_symlinks=False)
            if facts.st_uid == os.getuid() and time.time() - facts.st_mtime > _YOUNG_SECONDS:
                _remove_if_free(path)


def _remove_if_free(path: str) -> None:
    """Remove a folder that no process holds; without a lock file it is another program's, or being removed."""
    handle = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)
