"""What child processes of this package have in common."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

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
