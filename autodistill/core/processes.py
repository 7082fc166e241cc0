"""Tools for the child processes of this package."""

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

GUARD = "Workers import the script that starts them: put the code it runs below \"if __name__ == '__main__':\"."


def leave_while_starting() -> None:
    """End a child process that is importing its parent's script, so that the script does not run again.

    Raises:
        SystemExit: With one line for stderr. An exception would print a long traceback for each worker.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # set by multiprocessing while it imports
        raise SystemExit(f"autodistill: a worker's import of the script started a search. {GUARD}")


def die_with_parent() -> None:
    """Make Linux kill this process when its parent dies for any reason (PR_SET_PDEATHSIG)."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call took effect
        os._exit(1)


_LAST_SECONDS = 10.0


def end_soon(seconds: float = _LAST_SECONDS) -> None:
    """End this process after ``seconds`` at the latest, since libraries of a broken device may block its exit."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Start processes inside the ``with`` block without importing the running script.

    A script without a ``__main__`` guard would otherwise run again in each process, with all its side effects.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = bare = types.ModuleType("__main__")
    bare.__spec__ = None
    try:
        yield
    finally:
        sys.modules["__main__"] = script
