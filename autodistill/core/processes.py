"""What child processes of this package have in common."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator

GUARD = "A worker imports the script it belongs to: put what the script runs below \"if __name__ == '__main__':\"."


def leave_while_starting() -> None:
    """End a process that only imports the script of its parent, before the script does everything once more.

    Raises:
        SystemExit: with one line for stderr; an error would print its way through the import machinery, once a worker.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # set by multiprocessing while it imports
        raise SystemExit(f"autodistill: a search was started by an import. {GUARD}")


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, however it dies (PR_SET_PDEATHSIG)."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # it died between our start and the call
        os._exit(1)


_LAST_SECONDS = 10.0


def end_soon(seconds: float = _LAST_SECONDS) -> None:
    """End this process after a while, whatever its end waits for: libraries of a broken device may wait for ever."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Processes that are spawned meanwhile do not import the script that runs, as they would otherwise.

    A script that does not guard what it runs would do it once more, with all that it writes and removes.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = bare = types.ModuleType("__main__")
    bare.__spec__ = None
    try:
        yield
    finally:
        sys.modules["__main__"] = script
