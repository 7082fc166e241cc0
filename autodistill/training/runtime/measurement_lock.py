"""Lock that pauses trainings on a machine while another process measures latency.

A *trainer* is a process that trains, a *measurer* one that measures. Trainers hold a shared lock, which they release
between two batches when a measurer waits; a measurer holds the lock exclusively. Every device has its own lock: a
measurement on the CPU pauses trainings on the CPU, and one on a GPU pauses those on that GPU. The locks are ``flock``
on files in a folder of the user, so the kernel releases them when a process dies, however it dies. The names of a GPU's
files contain its UUID.

``intent``   held exclusively by the next measurer, which writes its process id into it; a trainer pauses when it finds
             this lock taken
``work``     held shared by every trainer at work, exclusively by the measurer at work
``waiting``  held shared by every paused trainer
``slice``    holds the time until which trainers work before the next measurement: after a measurement they get as much
             time as they waited for it. If no trainer waits or works, measurements do not wait for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autodistill.core.errors import ResourceError

PATIENCE_SECONDS = 120.0
"""Longest wait of a measurer for trainers and other measurers, and of a trainer for one measurement.

It is longer than any batch. It is finite so that a process that hangs does not block the others for ever."""
SLICE_SECONDS = 30.0
"""Longest time that trainers get between two measurements; far longer than a batch."""
NOTICE_SECONDS = 1.0
"""Interval at which a waiting process reports its wait."""

_POLL_SECONDS = 0.005
_TRAINER_POLL_SECONDS = 0.02  # longer, because a waiting trainer must not disturb the measurement
_log = logging.getLogger(__name__)
_state: dict[str, int] = {}
"""Handles of open lock files by process and path. A key ``shared<suffix>`` marks that this process holds the trainers'
lock of the device with that suffix (see ``_device_suffix``)."""
_passed: dict[str, bytes] = {}
"""Suffix of a device to the measurement that this trainer no longer waits for."""


def _never() -> bool:
    return False


def _ignore_wait(what: str, seconds: float) -> None:
    """Ignore reports of a wait."""


@dataclass(frozen=True)
class Waiting:
    """Callbacks of a process that waits for another one.

    Attributes:
        should_stop: called at every poll; true ends the wait.
        on_wait: called as ``on_wait(reason, seconds)`` about once a second, with the seconds waited since the last
            call, and once more with an empty reason at the end.
    """

    should_stop: Callable[[], bool] = _never
    on_wait: Callable[[str, float], None] = _ignore_wait


UNWATCHED = Waiting()


def yield_to_measurement(
    devices: Sequence[str] = ("cpu",), *, waiting: Waiting = UNWATCHED, patience: float = PATIENCE_SECONDS
) -> None:
    """Take or keep the trainers' lock between two batches; wait while a process measures on one of the devices.

    Costs two system calls if no process measures. :func:`release` releases the lock.

    Args:
        devices: torch device strings that this process trains on.
        waiting: callbacks during the wait. If ``should_stop`` ends the wait, the process does not hold the lock.
        patience: seconds to wait for one measurement. If it takes longer, the training continues beside it, with a
            warning, since the measurer may hang.
    """
    suffixes = [_device_suffix(one) for one in devices]
    if all(map(_may_continue, suffixes)):
        return
    release()
    clock = _Clock(waiting)
    try:
        for suffix in suffixes:
            _join(suffix, clock, patience)
    finally:
        clock.end()


def release() -> None:
    """Release the trainers' lock; a trainer must do so before it waits for anything else."""
    for name in [name for name in _state if name.startswith("shared")]:
        del _state[name]
        fcntl.flock(_open("work", name.removeprefix("shared")), fcntl.LOCK_UN)


@contextlib.contextmanager
def exclusive(
    device: str = "cpu", *, patience: float = PATIENCE_SECONDS, waiting: Waiting = UNWATCHED
) -> Iterator[bool]:
    """Reserve a device for a measurement.

    Trainers that had to wait get as much time afterwards as the measurement took (``SLICE_SECONDS`` at most), before
    this or another process measures again.

    Args:
        device: torch device string of the device to measure on.
        patience: seconds to wait for other measurers and for trainers to pause.
        waiting: callbacks during the wait.

    Yields:
        Whether this process has the device for itself. False if others did not pause in time, or ``should_stop`` ended
        the wait; a measurement is then noisy.
    """
    release()
    suffix = _device_suffix(device)
    intent, work = _open("intent", suffix), _open("work", suffix)
    since = None
    try:
        clock, deadline = _Clock(waiting), time.monotonic() + patience
        try:
            alone = _wait_for_turn(suffix, clock, deadline)
            if alone:
                since = time.monotonic()
                os.ftruncate(intent, 0)
                os.pwrite(intent, f"{os.getpid()} {since}".encode(), 0)
                alone = _wait_for_trainers(work, clock, deadline)
        finally:
            clock.end()
        yield alone
    finally:
        if since is not None and not _free("waiting", suffix):
            _grant(suffix, time.monotonic() - since)
        fcntl.flock(work, fcntl.LOCK_UN)
        fcntl.flock(intent, fcntl.LOCK_UN)


class _Clock:
    """Clock of one wait, which reports the seconds at intervals of ``NOTICE_SECONDS``."""

    def __init__(self, waiting: Waiting) -> None:
        self.should_stop, self._on_wait = waiting.should_stop, waiting.on_wait
        self._last, self._reported = time.monotonic(), False

    def tick(self, what: str, poll: float) -> None:
        """Sleep for ``poll`` seconds, and report the wait when it is time."""
        time.sleep(poll)
        now = time.monotonic()
        if now - self._last >= NOTICE_SECONDS:
            self._reported = True
            seconds, self._last = now - self._last, now
            self._on_wait(what, seconds)

    def end(self) -> None:
        """End the wait and report its last seconds, unless it was too short to matter."""
        seconds, self._last = time.monotonic() - self._last, time.monotonic()
        if self._reported or seconds >= _POLL_SECONDS:
            self._on_wait("", seconds)
        self._reported = False


def _may_continue(suffix: str) -> bool:
    """Return whether this process holds the trainers' lock and no measurer waits."""
    if not _state.get(f"shared{suffix}"):
        return False
    intent = _open("intent", suffix)
    try:
        fcntl.flock(intent, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(intent, fcntl.LOCK_UN)
    return True


def _join(suffix: str, clock: _Clock, patience: float) -> None:
    """Wait for the trainers' lock until it is free, the measurement takes too long, or ``should_stop`` is true."""
    if _shared(suffix):
        return
    waiting = _open("waiting", suffix)
    fcntl.flock(waiting, fcntl.LOCK_SH)
    since, holder = time.monotonic(), _holder(suffix)
    try:
        while not (_shared(suffix) or clock.should_stop() or _passed.get(suffix) == holder):
            clock.tick(f"waiting for a latency measurement of process {_pid(holder)}", _TRAINER_POLL_SECONDS)
            if (now := _holder(suffix)) != holder:  # the next measurement
                since, holder = time.monotonic(), now
            elif time.monotonic() - since > patience:
                _log.warning(
                    "process %s has measured for more than %.0f s; training goes on beside it", _pid(holder), patience
                )
                _passed[suffix] = holder
    finally:
        fcntl.flock(waiting, fcntl.LOCK_UN)


def _shared(suffix: str) -> bool:
    """Try to take the trainers' lock; fail if a process measures or waits to measure."""
    intent = _open("intent", suffix)
    try:
        fcntl.flock(intent, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        fcntl.flock(_open("work", suffix), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        fcntl.flock(intent, fcntl.LOCK_UN)
    _state[f"shared{suffix}"] = 1
    _passed.pop(suffix, None)
    return True


def _wait_for_turn(suffix: str, clock: _Clock, deadline: float) -> bool:
    """Take the measurers' lock, after other measurers and the trainers' time slice; return false if time runs out."""
    intent = _open("intent", suffix)
    while not clock.should_stop():
        if not _slice(suffix) and _try(intent):
            if not _slice(suffix):  # check again: a slice may have been granted in between
                return True
            fcntl.flock(intent, fcntl.LOCK_UN)
        if time.monotonic() > deadline:
            return False
        clock.tick(_turn_reason(suffix), _POLL_SECONDS)
    return False


def _wait_for_trainers(work: int, clock: _Clock, deadline: float) -> bool:
    """Wait until all trainers have paused and take their lock exclusively; return false if time runs out."""
    while not _try(work):
        if time.monotonic() > deadline or clock.should_stop():
            return False
        clock.tick("waiting for trainings to pause for a latency measurement", _POLL_SECONDS)
    return True


def _turn_reason(suffix: str) -> str:
    if _slice(suffix):
        return "letting trainings of other processes continue between two latency measurements"
    return f"waiting for a latency measurement of process {_pid(_holder(suffix))}"


def _grant(suffix: str, seconds: float) -> None:
    """Grant trainers a time slice as long as they waited, in the machine's monotonic clock, which processes share."""
    handle = _open("slice", suffix)
    os.ftruncate(handle, 0)
    os.pwrite(handle, repr(time.monotonic() + min(seconds, SLICE_SECONDS)).encode(), 0)


def _slice(suffix: str) -> bool:
    """Return whether trainers still have a time slice and are at work or about to be."""
    try:
        left = float(os.pread(_open("slice", suffix), 64, 0)) - time.monotonic()
    except ValueError:  # no slice yet, or one that is being written
        return False
    # The upper bound rejects a slice from before a restart of the machine, which resets the clock.
    return 0 < left <= SLICE_SECONDS and not (_free("waiting", suffix) and _free("work", suffix))


def _holder(suffix: str) -> bytes:
    """Return what the last measurer wrote: process id and time of its start."""
    return os.pread(_open("intent", suffix), 64, 0)


def _pid(holder: bytes) -> str:
    return holder.split(b" ")[0].decode("ascii", "replace") or "?"


def _free(name: str, suffix: str) -> bool:
    """Return whether no process holds a lock at this moment; the calling process must not hold it itself."""
    handle = _open(name, suffix)
    if _try(handle):
        fcntl.flock(handle, fcntl.LOCK_UN)
        return True
    return False


def _try(handle: int) -> bool:
    """Try to take a lock exclusively; return whether it succeeded."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@functools.cache
def _device_suffix(device: str) -> str:
    """Return the suffix of the lock files of a device: empty for the CPU, the UUID for a GPU."""
    if not device.startswith("cuda"):
        return ""
    import torch

    # The index does not identify a GPU: with CUDA_VISIBLE_DEVICES, cuda:0 may differ between processes.
    return f"-{torch.cuda.get_device_properties(torch.device(device)).uuid}"


def _open(name: str, suffix: str = "") -> int:
    """Return this process's own handle of a lock file; a forked child must not share its parent's locks."""
    path = folder() / f"{name}{suffix}"
    key = f"{os.getpid()}:{path}"
    if key not in _state:
        _state[key] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    return _state[key]


def folder() -> Path:
    """Return the folder of the lock files, one per user and machine; ``AUTODISTILL_LEASE`` sets it.

    Raises:
        ResourceError: Another user owns the folder.
    """
    path = Path(os.environ.get("AUTODISTILL_LEASE") or Path(tempfile.gettempdir()) / f"autodistill-lease-{os.getuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ResourceError(f"{path} belongs to another user; set AUTODISTILL_LEASE to a folder of your own.")
    return path
