"""Quiet time for measurements: a lease between the processes of one machine that train and those that measure.

Trainers hold a shared lock and let go of it between batches when a measurer waits; a measurer holds it alone. Every
device has a lease of its own: a measurement on the CPU stops trainings on the CPU, one on a GPU those on that GPU.
The locks are ``flock`` on files of the user's runtime folder, so the kernel frees them when a process dies, however it
dies. A GPU's files have its identity in their names.

``intent``   held alone by the measurer that is next, which writes its process number there; a trainer that finds it
             taken steps aside
``work``     held shared by every trainer at work, alone by the measurer at work
``waiting``  held shared by every trainer that has stepped aside
``slice``    says until when trainers are at work before anything is measured again: as long as they have waited for the
             last measurement. Where none of them waits or works, nothing is held up.
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
"""How long a measurer waits for trainers and other measurers: longer than any batch, for a trainer that hangs must not
stop every measurement for ever; and how long a trainer waits for one measurement, for the same reason."""
SLICE_SECONDS = 30.0
"""The longest time for which trainers hold up the next measurement; far above a batch."""
SAID_SECONDS = 1.0
"""How often a process that waits says so."""

_POLL_SECONDS = 0.005
_REST_POLL_SECONDS = 0.02  # of a trainer: it must not disturb what it waits for
_log = logging.getLogger(__name__)
_state: dict[str, int] = {}
_passed: dict[str, bytes] = {}
"""By device, the measurement that this trainer has stopped waiting for."""


def _never() -> bool:
    return False


def _unheard(what: str, seconds: float) -> None:
    """A wait that is shown nowhere."""


@dataclass(frozen=True)
class Waiting:
    """What a process does while it waits for another one.

    Attributes:
        should_stop: asked all the time; true ends the wait.
        told: called as ``told(for what, seconds)`` about once a second, with the seconds waited since the last call,
            and once more with an empty text at the end.
    """

    should_stop: Callable[[], bool] = _never
    told: Callable[[str, float], None] = _unheard


UNWATCHED = Waiting()


def yield_to_measurement(
    devices: Sequence[str] = ("cpu",), *, waiting: Waiting = UNWATCHED, patience: float = PATIENCE_SECONDS
) -> None:
    """Say that this process trains, between two batches; waits while somebody measures on one of its devices.

    Costs two system calls when nobody does. :func:`release` ends it.

    Args:
        devices: torch device strings that it trains on.
        waiting: what it does meanwhile. When it is asked to stop, it does not hold the lease afterwards.
        patience: seconds to wait for one measurement. A measurer that takes longer is taken to hang: the training goes
            on beside it, with a warning.
    """
    places = [_place(one) for one in devices]
    if all(map(_goes_on, places)):
        return
    release()
    clock = _Clock(waiting)
    try:
        for place in places:
            _join(place, clock, patience)
    finally:
        clock.end()


def release() -> None:
    """Say that this process does not train for now; a process that waits for something must not hold the lease."""
    for name in [name for name in _state if name.startswith("shared")]:
        del _state[name]
        fcntl.flock(_open("work", name.removeprefix("shared")), fcntl.LOCK_UN)


@contextlib.contextmanager
def exclusive(
    device: str = "cpu", *, patience: float = PATIENCE_SECONDS, waiting: Waiting = UNWATCHED
) -> Iterator[bool]:
    """Hold a device for a measurement.

    Trainers that had to wait for it are at work afterwards for as long as it took (``SLICE_SECONDS`` at most), before
    this or another process measures again.

    Args:
        device: torch device string of what is measured.
        patience: seconds to wait for other measurers and for trainers to step aside.
        waiting: what it does meanwhile.

    Yields:
        Whether the device is quiet; false when others did not step aside in time, or it was asked to stop: the figure
        is noisy.
    """
    release()
    place = _place(device)
    intent, work = _open("intent", place), _open("work", place)
    since = None
    try:
        clock, deadline = _Clock(waiting), time.monotonic() + patience
        try:
            alone = _turn(place, clock, deadline)
            if alone:
                since = time.monotonic()
                os.ftruncate(intent, 0)
                os.pwrite(intent, f"{os.getpid()} {since}".encode(), 0)
                alone = _take(work, clock, deadline)
        finally:
            clock.end()
        yield alone
    finally:
        if since is not None and not _free("waiting", place):
            _grant(place, time.monotonic() - since)
        fcntl.flock(work, fcntl.LOCK_UN)
        fcntl.flock(intent, fcntl.LOCK_UN)


class _Clock:
    """Seconds of one wait, told now and then."""

    def __init__(self, waiting: Waiting) -> None:
        self.should_stop, self._told = waiting.should_stop, waiting.told
        self._last, self._said = time.monotonic(), False

    def tick(self, what: str, poll: float) -> None:
        """Wait a little."""
        time.sleep(poll)
        now = time.monotonic()
        if now - self._last >= SAID_SECONDS:
            self._said = True
            seconds, self._last = now - self._last, now
            self._told(what, seconds)

    def end(self) -> None:
        """The wait is over; a short one is counted, and not worth a word."""
        seconds, self._last = time.monotonic() - self._last, time.monotonic()
        if self._said or seconds >= _POLL_SECONDS:
            self._told("", seconds)
        self._said = False


def _goes_on(place: str) -> bool:
    """Whether this process trains already, and nobody wants to measure."""
    if not _state.get(f"shared{place}"):
        return False
    intent = _open("intent", place)
    try:
        fcntl.flock(intent, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(intent, fcntl.LOCK_UN)
    return True


def _join(place: str, clock: _Clock, patience: float) -> None:
    """Hold the trainers' lock as soon as nobody measures, or the measurement lasts too long."""
    if _shared(place):
        return
    waiting = _open("waiting", place)
    fcntl.flock(waiting, fcntl.LOCK_SH)
    since, holder = time.monotonic(), _holder(place)
    try:
        while not (_shared(place) or clock.should_stop() or _passed.get(place) == holder):
            clock.tick(f"waiting for a latency measurement of process {_pid(holder)}", _REST_POLL_SECONDS)
            if (now := _holder(place)) != holder:  # the next measurement
                since, holder = time.monotonic(), now
            elif time.monotonic() - since > patience:
                _log.warning(
                    "process %s has measured for more than %.0f s; training goes on beside it", _pid(holder), patience
                )
                _passed[place] = holder
    finally:
        fcntl.flock(waiting, fcntl.LOCK_UN)


def _shared(place: str) -> bool:
    """Take the trainers' lock, if nobody measures or wants to."""
    intent = _open("intent", place)
    try:
        fcntl.flock(intent, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        fcntl.flock(_open("work", place), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        fcntl.flock(intent, fcntl.LOCK_UN)
    _state[f"shared{place}"] = 1
    _passed.pop(place, None)
    return True


def _turn(place: str, clock: _Clock, deadline: float) -> bool:
    """Take the measurers' lock, after other measurers and the trainers' slice of time; false when that takes long."""
    intent = _open("intent", place)
    while not clock.should_stop():
        if not _slice(place) and _try(intent):
            if not _slice(place):  # none was granted meanwhile
                return True
            fcntl.flock(intent, fcntl.LOCK_UN)
        if time.monotonic() > deadline:
            return False
        clock.tick(_reason(place), _POLL_SECONDS)
    return False


def _take(work: int, clock: _Clock, deadline: float) -> bool:
    """Wait for trainers to step aside."""
    while not _try(work):
        if time.monotonic() > deadline or clock.should_stop():
            return False
        clock.tick("waiting for trainings to step aside for a latency measurement", _POLL_SECONDS)
    return True


def _reason(place: str) -> str:
    if _slice(place):
        return "letting trainings of other processes go on between two latency measurements"
    return f"waiting for a latency measurement of process {_pid(_holder(place))}"


def _grant(place: str, seconds: float) -> None:
    """Let trainers work for as long as they have waited; the clock is that of the machine, the same for all of them."""
    handle = _open("slice", place)
    os.ftruncate(handle, 0)
    os.pwrite(handle, repr(time.monotonic() + min(seconds, SLICE_SECONDS)).encode(), 0)


def _slice(place: str) -> bool:
    """Whether trainers are at work in their slice of time, or about to be."""
    try:
        left = float(os.pread(_open("slice", place), 64, 0)) - time.monotonic()
    except ValueError:  # none yet, or one that is being written
        return False
    # after a restart of the machine its clock begins anew
    return 0 < left <= SLICE_SECONDS and not (_free("waiting", place) and _free("work", place))


def _holder(place: str) -> bytes:
    """What the last measurer wrote of itself."""
    return os.pread(_open("intent", place), 64, 0)


def _pid(holder: bytes) -> str:
    return holder.split(b" ")[0].decode("ascii", "replace") or "?"


def _free(name: str, place: str) -> bool:
    """Whether no other process holds a file at this moment; this one must not hold it."""
    handle = _open(name, place)
    if _try(handle):
        fcntl.flock(handle, fcntl.LOCK_UN)
        return True
    return False


def _try(handle: int) -> bool:
    """Take a lock alone, if nobody has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@functools.cache
def _place(device: str) -> str:
    """What the files of a device's lease end in: nothing for the CPU, else what no other GPU of the machine has."""
    if not device.startswith("cuda"):
        return ""
    import torch

    # cuda:0 is another GPU in each process that is shown only some of them (CUDA_VISIBLE_DEVICES)
    return f"-{torch.cuda.get_device_properties(torch.device(device)).uuid}"


def _open(name: str, place: str = "") -> int:
    """A handle of this process's own; a forked child must not share its parent's locks."""
    path = folder() / f"{name}{place}"
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
