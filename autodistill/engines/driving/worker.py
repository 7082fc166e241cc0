"""A worker process: builds its evaluator once, then evaluates candidates until it is told to quit.

Messages are plain tuples over a pipe between parent and child; nothing listens on a socket.

driver to worker: ``("run", candidate)``, ``("decision", Decision)``, ``("quit",)``
worker to driver: ``("ready",)``, ``("unfit", why)``, ``("progress", epoch, epochs, metrics)``, ``("pause",)``,
``("waits", for what, seconds)``, ``("report", Report)``, ``("leaving",)``, ``("done",)``,
``("error", type name, reason, message, traceback)``
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import time
import traceback
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

from autodistill.core.errors import AutodistillError, DivergedError, InfeasibleError, InterruptedTrialError, error_text
from autodistill.core.errors import WorkerLostError as WorkerLostError
from autodistill.core.processes import die_with_parent, end_soon
from autodistill.core.records import Candidate, Decision, Evaluate, EvaluateFactory, Report, WorkerContext
from autodistill.core.registry import Foreign, register_again

_PROGRESS_SECONDS = 0.5
_WANTED = "It has to be a generator of reports: yield autodistill.Report(rung, {name: value})."


class RemoteError(AutodistillError):
    """An error that happened in a worker.

    Args:
        kind: name of the exception's type there.
        message: its text.
        reason: reason code stored with the trial.
        trace: the traceback as text, for the log.
    """

    def __init__(self, kind: str, message: str, reason: str = "ERROR", trace: str = "") -> None:
        self.kind, self.reason, self.trace = kind, reason, trace
        super().__init__(f"{kind}: {message}" if kind else message)


class Isolated(functools.partial[Evaluate]):
    """A factory, with its first arguments, whose evaluator works in a process of its own even as the only worker.

    What it trains may crash, and must not take the search with it; there is nothing in it to be debugged by its user.
    """


def work(
    pipe: Connection, factory: EvaluateFactory, context: WorkerContext, stop: Event, names: Sequence[Foreign] = ()
) -> None:
    """Body of a spawned worker.

    Args:
        pipe: the worker's end.
        factory: builds the evaluator; called once.
        context: index, device, threads; progress and stop are filled in here.
        stop: set by the driver when running trials should save and stop.
        names: that the driver's own code has registered there, for a worker that does not import the driver's script.
    """
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides what it means
    # systemd, SLURM and 'timeout' send SIGTERM to the whole group too, a closed terminal SIGHUP. Programs that the
    # worker starts do not inherit a handler, as they would inherit SIG_IGN.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)

    def waits(what: str, seconds: float) -> None:
        _send(pipe, ("waits", what, seconds))

    with contextlib.suppress(_DriverGoneError):
        if why := register_again(names):
            _send(pipe, ("unfit", why))
            return
        progress = _Progress(pipe)
        here = replace(context, progress=progress.send, pause=progress.pause, should_stop=stop.is_set, waits=waits)
        _serve(pipe, factory, here)


def _serve(pipe: Connection, factory: EvaluateFactory, context: WorkerContext) -> None:
    """Evaluate what the driver sends until it says quit."""
    evaluate: Evaluate | None = None
    _send(pipe, ("ready",))
    while True:
        message = _receive(pipe)
        if message[0] == "quit":
            return
        try:
            if evaluate is None:
                evaluate = factory(context)
            if not _run(pipe, evaluate, message[1]):
                return
        except _DriverGoneError:
            raise
        except BaseException as error:  # whatever it was, the driver files it with the trial
            broken = is_device_broken(error)
            if broken:  # first, so that the driver has nothing more for this process
                _send(pipe, ("leaving",))
            _send(pipe, pack_error(error))
            if broken:
                end_soon()
                return


class _DriverGoneError(AutodistillError):
    """The pipe ended at the driver's side; an evaluation may raise the same errors for reasons of its own."""


def _send(pipe: Connection, message: tuple[Any, ...]) -> None:
    try:
        pipe.send(message)
    except OSError as error:
        raise _DriverGoneError("the driver does not listen any more") from error


def _receive(pipe: Connection) -> tuple[Any, ...]:
    try:
        message: tuple[Any, ...] = pipe.recv()
    except (EOFError, OSError) as error:
        raise _DriverGoneError("the driver does not speak any more") from error
    return message


def same_for_all(evaluate: Evaluate, context: WorkerContext) -> Evaluate:
    """A factory that ignores its worker: the user's own function serves every slot alike.

    It is here, where a worker finds it without loading anything that only the driver needs.
    """
    del context
    return evaluate


def reports_of(evaluate: Evaluate, candidate: Candidate) -> Generator[Report, None, None]:
    """What an evaluation yields, closed with this generator.

    Raises:
        TypeError: it is something else than reports.
    """
    reports: Any = evaluate(candidate)
    if isinstance(reports, Report) or not isinstance(reports, Iterable):
        raise TypeError(f"the evaluation returned {_shown(reports)}. {_WANTED}")
    try:
        for report in reports:
            if not isinstance(report, Report):
                raise TypeError(f"the evaluation yielded {_shown(report)}. {_WANTED}")
            yield report
    finally:
        close = getattr(reports, "close", None)
        if close is not None:
            close()


def _shown(value: object) -> str:
    return repr(value)[:100]


def _run(pipe: Connection, evaluate: Evaluate, candidate: Candidate) -> bool:
    """Evaluate one candidate; false when told to quit in the place of a decision."""
    with contextlib.closing(reports_of(evaluate, candidate)) as reports:
        for report in reports:
            _send(pipe, ("report", report))
            answer = _receive(pipe)
            if answer[0] == "quit":
                return False
            if answer[1] is Decision.STOP:
                break
    _send(pipe, ("done",))
    return True


_BROKEN = (
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "misaligned address",
    "illegal instruction",
    "invalid program counter",
    "hardware stack error",
    "operation not supported on global/shared address space",
    "launch timed out",
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
    "cuda error: unknown error",
)
"""What ``cudaGetErrorString`` says of the errors that "leave the process in an inconsistent state" (CUDA Runtime API,
``cudaError_t``): every later call of the process fails with them."""


def is_device_broken(error: BaseException) -> bool:
    """Whether after ``error`` nothing more can be computed on the GPU by this process."""
    one: BaseException | None = error
    for _ in range(10):  # a wrapped error may be its own cause
        if one is None:
            break
        text = error_text(one).lower()
        if "cuda" in text and any(words in text for words in _BROKEN):
            return True
        one = one.__cause__ or one.__context__
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except Exception:  # AcceleratorError, or RuntimeError before torch 2.8
        return True
    return False


def pack_error(error: BaseException) -> tuple[str, str, str, str, str]:
    """An exception as a message; its type crosses by name, so that nothing needs to be unpickled."""
    reason = str(getattr(error, "reason", "ERROR")) if isinstance(error, AutodistillError) else "ERROR"
    return ("error", type(error).__name__, reason, error_text(error), traceback.format_exc())


def unpack_error(message: tuple[str, str, str, str, str]) -> BaseException:
    """The exception the study should see."""
    _, kind, reason, text, trace = message
    if kind == "InfeasibleError":
        return InfeasibleError(text, reason)
    if kind == "DivergedError":
        return DivergedError(text)
    if kind == "InterruptedTrialError":
        return InterruptedTrialError(text)
    if kind in ("MemoryError", "OutOfMemoryError"):
        return MemoryError(text)
    return RemoteError(kind, text, reason, trace)


class _Progress:
    """Sends progress at most twice a second; a full pipe must not slow training."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._last = 0.0

    def pause(self) -> None:
        """Something else than training begins."""
        _send(self._pipe, ("pause",))

    def send(self, epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            _send(self._pipe, ("progress", epoch, epochs, dict(metrics)))
