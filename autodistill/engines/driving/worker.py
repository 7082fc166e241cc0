"""A worker process: it builds its evaluator once, then evaluates candidates until it receives ``quit``.

Messages are plain tuples over a pipe between parent and child; no socket is opened.

driver to worker: ``("run", candidate)``, ``("decision", Decision)``, ``("quit",)``
worker to driver: ``("ready",)``, ``("unfit", why)``, ``("progress", epoch, epochs, metrics)``, ``("pause",)``,
``("waits", what for, seconds)``, ``("report", Report)``, ``("leaving",)``, ``("done",)``,
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
from typing import Any

from autodistill.core.errors import AutodistillError, DivergedError, InfeasibleError, InterruptedTrialError, error_text
from autodistill.core.errors import WorkerLostError as WorkerLostError
from autodistill.core.processes import die_with_parent, end_soon
from autodistill.core.records import Candidate, Decision, Evaluate, EvaluateFactory, Report, WorkerContext
from autodistill.core.registry import Foreign, register_again
from autodistill.engines.driving.stop_flag import StopFlag

_PROGRESS_SECONDS = 0.5
_WANTED = "It must be a generator of reports: yield autodistill.Report(rung, {name: value})."


class RemoteError(AutodistillError):
    """An error that happened in a worker.

    Args:
        kind: Name of the exception's type.
        message: Text of the exception.
        reason: Reason code stored with the trial.
        trace: Traceback as text, for the log.
    """

    def __init__(self, kind: str, message: str, reason: str = "ERROR", trace: str = "") -> None:
        self.kind, self.reason, self.trace = kind, reason, trace
        super().__init__(f"{kind}: {message}" if kind else message)


class Isolated(functools.partial[Evaluate]):
    """A factory whose evaluator runs in its own process even if there is only one worker.

    A training of the package may crash and must not end the search; users do not need to debug it in this process.
    """


def work(
    pipe: Connection, factory: EvaluateFactory, context: WorkerContext, stop: StopFlag, names: Sequence[Foreign] = ()
) -> None:
    """Run a spawned worker until the driver sends ``quit``.

    Args:
        pipe: The worker's end of the pipe.
        factory: Builds the evaluator; called once.
        context: Index, device and threads; the callbacks are filled in here.
        stop: Set by the driver when running trials should save and stop.
        names: Names that the user's code has registered in the driver, if the worker does not import its script.
    """
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver handles it
    # systemd, SLURM and 'timeout' also send SIGTERM to the whole group, a closed terminal SIGHUP. A handler is used
    # instead of SIG_IGN because programs that the worker starts would inherit SIG_IGN.
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
    """Evaluate the candidates that the driver sends until it sends ``quit``."""
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
        except BaseException as error:  # the driver stores any error with the trial
            broken = is_device_broken(error)
            if broken:  # sent first, so that the driver sends no further candidate to this process
                _send(pipe, ("leaving",))
            _send(pipe, pack_error(error))
            if broken:
                end_soon()
                return


class _DriverGoneError(AutodistillError):
    """The driver closed the pipe; a separate type, since an evaluation may raise the same OSError or EOFError."""


def _send(pipe: Connection, message: tuple[Any, ...]) -> None:
    try:
        pipe.send(message)
    except OSError as error:
        raise _DriverGoneError("the driver no longer reads the pipe") from error


def _receive(pipe: Connection) -> tuple[Any, ...]:
    try:
        message: tuple[Any, ...] = pipe.recv()
    except (EOFError, OSError) as error:
        raise _DriverGoneError("the driver no longer writes to the pipe") from error
    return message


def same_for_all(evaluate: Evaluate, context: WorkerContext) -> Evaluate:
    """Return ``evaluate`` for every worker: a factory for a user's own function.

    It is in this module so that a worker can import it without loading what only the driver needs.
    """
    del context
    return evaluate


def reports_of(evaluate: Evaluate, candidate: Candidate) -> Generator[Report, None, None]:
    """Yield the reports of an evaluation, and close it when this generator is closed.

    Raises:
        TypeError: The evaluation returns or yields something other than reports.
    """
    reports: Any = evaluate(candidate)
    if isinstance(reports, Report) or not isinstance(reports, Iterable):
        raise TypeError(f"the evaluation returned {_shortened(reports)}. {_WANTED}")
    try:
        for report in reports:
            if not isinstance(report, Report):
                raise TypeError(f"the evaluation yielded {_shortened(report)}. {_WANTED}")
            yield report
    finally:
        close = getattr(reports, "close", None)
        if close is not None:
            close()


def _shortened(value: object) -> str:
    return repr(value)[:100]


def _run(pipe: Connection, evaluate: Evaluate, candidate: Candidate) -> bool:
    """Evaluate one candidate; return false if the driver sent ``quit`` instead of a decision."""
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
"""Texts of ``cudaGetErrorString`` for errors that "leave the process in an inconsistent state" (CUDA Runtime API,
``cudaError_t``): after them, every further CUDA call of the process fails."""


def is_device_broken(error: BaseException) -> bool:
    """Return whether this process can no longer compute on the GPU after ``error``."""
    one: BaseException | None = error
    for _ in range(10):  # bounded, since a wrapped error may be its own cause
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
    """Convert an exception to a message; its type is sent as a name, so that nothing has to be unpickled."""
    reason = str(getattr(error, "reason", "ERROR")) if isinstance(error, AutodistillError) else "ERROR"
    return ("error", type(error).__name__, reason, error_text(error), traceback.format_exc())


def unpack_error(message: tuple[str, str, str, str, str]) -> BaseException:
    """Convert a message of :func:`pack_error` back to an exception."""
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
    """Sender of progress messages, at most two per second, so that a full pipe does not slow training."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._last = 0.0

    def pause(self) -> None:
        """Send that the trial now does something other than training."""
        _send(self._pipe, ("pause",))

    def send(self, epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
        """Send progress, unless the last message is too recent."""
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            _send(self._pipe, ("progress", epoch, epochs, dict(metrics)))
