"""Quiet time for measurements: a lease between the processes of one machine that train and those that measure.

Trainers hold a shared lock and let go of it between batches when a measurer waits; a measurer holds it alone. The locks
are ``flock`` on two files of the user's runtime folder, so the kernel frees them when a process dies, however it dies.

``intent``  held alone by the measurer that is next; a trainer that finds it taken steps aside
``work``    held shared by every trainer at work, alone by the measurer at work
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from autodistill.errors import ResourceError

PATIENCE_SECONDS = 120.0  # longer than any batch; a trainer that hangs must not stop every measurement for ever
_POLL_SECONDS = 0.005
_state: dict[str, int] = {}


def breathe() -> None:
    """Say that this process trains, between two batches; waits while somebody measures.

    Costs two system calls when nobody does. :func:`rest` ends it.
    """
    intent, work = _open("intent"), _open("work")
    if _state.get("shared"):
        try:
            fcntl.flock(intent, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            rest()
        else:
            fcntl.flock(intent, fcntl.LOCK_UN)
            return
    fcntl.flock(intent, fcntl.LOCK_SH)  # waits for the measurer
    fcntl.flock(work, fcntl.LOCK_SH)
    fcntl.flock(intent, fcntl.LOCK_UN)
    _state["shared"] = 1


def rest() -> None:
    """Say that this process does not train for now; a process that waits for something must not hold the lease."""
    if _state.pop("shared", 0):
        fcntl.flock(_open("work"), fcntl.LOCK_UN)


@contextlib.contextmanager
def quiet(patience: float = PATIENCE_SECONDS) -> Iterator[bool]:
    """Hold the machine for a measurement.

    Args:
        patience: seconds to wait for trainers to step aside.

    Yields:
        Whether the machine is quiet; false when a trainer did not step aside in time, and the figure is noisy.
    """
    rest()
    intent, work = _open("intent"), _open("work")
    alone = False
    try:
        deadline = time.monotonic() + patience
        alone = _take(intent, deadline) and _take(work, deadline)
        yield alone
    finally:
        fcntl.flock(work, fcntl.LOCK_UN)
        fcntl.flock(intent, fcntl.LOCK_UN)


def is_wanted() -> bool:
    """Whether somebody measures, or waits to measure, so that trainings step aside."""
    handle = _open("intent")
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


def _take(handle: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


def _open(name: str) -> int:
    """A handle of this process's own; a forked child must not share its parent's locks."""
    path = folder() / name
    key = f"{os.getpid()}:{path}"
    if key not in _state:
        _state[key] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    return _state[key]


def folder() -> Path:
    """The folder of the lease, one per user and machine.

    Raises:
        ResourceError: somebody else owns it.
    """
    path = Path(os.environ.get("AUTODISTILL_LEASE") or Path(tempfile.gettempdir()) / f"autodistill-lease-{os.getuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ResourceError(f"{path} belongs to another user; set AUTODISTILL_LEASE to a folder of your own.")
    return path
