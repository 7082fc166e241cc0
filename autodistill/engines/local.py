"""Engine ``local``: workers on this machine, as spawned processes or, for a single user evaluation, in this process."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from autodistill.core.errors import AutodistillError, EndedEarlyError, UsageError, WorkerLostError
from autodistill.core.processes import GUARD, without_main
from autodistill.core.records import Candidate, Decision, Evaluate, EvaluateFactory, Report
from autodistill.core.registry import foreign
from autodistill.core.wording import student_words
from autodistill.engines.driving.driven import Driven
from autodistill.engines.driving.environment import environment
from autodistill.engines.driving.hangs import Hangs, Pulse
from autodistill.engines.driving.lost_workers import LostWorkers, ending, loss_of
from autodistill.engines.driving.prefetch import PrefetchedCandidates
from autodistill.engines.driving.slots import Slot
from autodistill.engines.driving.stop_flag import StopSwitch
from autodistill.engines.driving.unreported_work import UnreportedWork
from autodistill.engines.driving.worker import Isolated, reports_of, unpack_error, work
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.monitor.worker_line import WorkerLine

IN_PROCESS = "AUTODISTILL_IN_PROCESS"
"""Environment variable: ``1`` lets a single worker train in the process of the search, for breakpoints."""

_POLL_SECONDS = 0.25
_GRACE_SECONDS = 30.0  # time for stopped workers to finish their batch and write a checkpoint, all at once
_HURRY_SECONDS = 3.0  # the same after a second Ctrl-C
_IDLE_SECONDS = 5.0  # time for idle workers to end
_MAX_IDLE_LOST = 3  # workers lost in a row without a trial, per slot, until the search ends with an error


def run(study: Driven, factory: EvaluateFactory, slots: Sequence[Slot], watch: Watch) -> None:
    """Run the candidates of the study until there are none left or the search should stop.

    Args:
        study: The study, or a queue with the same methods.
        factory: Builds the evaluator of each worker.
        slots: One slot per worker.
        watch: Receives progress, and reports when to stop.
    """
    if len(slots) > 1:
        _Pool(study, factory, slots, watch).run()
        return
    if isinstance(factory, Isolated) and os.environ.get(IN_PROCESS) != "1":
        try:
            _check_isolation(slots[0])
            _Pool(study, factory, slots, watch, script=False).run()
            return
        except _NotIsolatedError as error:
            watch.stage("worker", f"trains in this process, so a crash would end the search: {error}")
    _run_here(study, factory, slots[0], watch)


class _NotIsolatedError(AutodistillError):
    """The single worker cannot run in its own process; no trial has begun."""


def _check_isolation(slot: Slot) -> None:
    """Check that a worker can run without importing the driver's script.

    Raises:
        _NotIsolatedError: It cannot.
    """
    if multiprocessing.current_process().daemon:
        raise _NotIsolatedError("it is a daemon process of multiprocessing, which cannot start processes")
    here = [one.name for one in foreign() if one.module == "__main__"]
    if here:
        raise _NotIsolatedError(f"the script itself registers {', '.join(here)}; register them in a module it imports")
    if foreign() and slot.devices:
        raise _NotIsolatedError("your code registers names, and trials are trained on several devices")


def _run_here(study: Driven, factory: EvaluateFactory, slot: Slot, watch: Watch) -> None:
    """Run one worker in this process, so that breakpoints and tracebacks work as in any script."""
    here = _Here(study, watch)
    evaluate = factory(slot.context(progress=here.progress, should_stop=watch.should_stop, waits=here.waits))
    while not watch.should_stop():
        candidate = study.ask()
        if candidate is None:
            return
        here.run(evaluate, candidate)


class _Here:
    """The worker in this process; it separates errors of the evaluation from errors of the study itself."""

    def __init__(self, study: Driven, watch: Watch) -> None:
        self._study, self._watch = study, watch
        self._candidate: Candidate | None = None
        self._work = UnreportedWork()
        self._failure: Exception | None = None
        watch.under_way = lambda: self._work.seconds if self._candidate is not None else 0.0

    def progress(self, epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
        """Pass on progress; keep an error raised here, which would otherwise look like an error of the training."""
        if self._candidate is None:
            return
        self._work.epoch = epoch
        try:
            self._watch.progress(_line(self._candidate, epoch, epochs, metrics))
        except Exception as error:
            self._failure = error
            raise

    def waits(self, what: str, seconds: float) -> None:
        """Record that the trial waits for another process; the time does not count as work."""
        if self._candidate is not None:
            self._work.leave_out(seconds)
            self._watch.waits(_waiting(self._candidate, self._work, what), seconds)

    def run(self, evaluate: Evaluate, candidate: Candidate) -> None:
        """Run one trial. Errors of its evaluation fail the trial; all other errors end the search."""
        self._candidate, self._work = candidate, UnreportedWork()
        errors: list[BaseException] = []
        try:
            with contextlib.closing(_reports(evaluate, candidate, errors, self._watch)) as reports:
                for report in reports:
                    decision = self._study.report(candidate, report, seconds=self._work.reported(report))
                    self._work.begin()
                    if decision is Decision.STOP or self._watch.should_stop():
                        break
                else:
                    if not (errors or self._watch.should_stop()):
                        errors.append(EndedEarlyError())
            if self._failure is not None:
                raise self._failure
        except BaseException:  # the study's own error, or a second Ctrl-C
            self._candidate = None
            with contextlib.suppress(Exception):  # raise the first error; an open trial is resumed later
                self._study.close(candidate)
            raise
        work, self._candidate = self._work, None
        self._study.close(candidate, errors[0] if errors else None, seconds=work.seconds, epochs=work.epoch)
        self._watch.ended()


def _reports(
    evaluate: Evaluate, candidate: Candidate, errors: list[BaseException], watch: Watch
) -> Generator[Report, None, None]:
    """Yield what the evaluation yields; whatever it raises, ``sys.exit`` included, goes into ``errors``.

    Raises:
        KeyboardInterrupt: the user's second Ctrl-C, not one that the evaluation raises by itself.
    """
    reports = reports_of(evaluate, candidate)
    try:
        while (report := _next(reports, errors, watch)) is not None:
            yield report
    finally:
        try:
            reports.close()
        except BaseException as error:
            _keep(error, errors, watch)


def _next(reports: Generator[Report, None, None], errors: list[BaseException], watch: Watch) -> Report | None:
    """Return the next report; ``None`` when the evaluation has ended, by itself or by an error."""
    try:
        return next(reports, None)
    except BaseException as error:
        _keep(error, errors, watch)
        return None


def _keep(error: BaseException, errors: list[BaseException], watch: Watch) -> None:
    """Keep an error for the trial, unless it is the user's wish to end the search at once."""
    if isinstance(error, KeyboardInterrupt) and watch.at_once:
        raise error
    errors.append(error)


@dataclass
class _Worker:
    """A worker process and its current trial.

    Attributes:
        slot: Devices and threads of the worker.
        process: The process.
        pipe: The driver's end of the pipe.
        candidate: Candidate it evaluates; ``None`` if it has none.
        work: Work since the last report.
        pulse: Progress messages of the trial.
        ready: Whether the worker has started.
        leaving: Whether the worker will end by itself, since its device is broken.
    """

    slot: Slot
    process: SpawnProcess
    pipe: Connection
    candidate: Candidate | None = None
    work: UnreportedWork = field(default_factory=UnreportedWork)
    pulse: Pulse = field(default_factory=Pulse)
    ready: bool = False
    leaving: bool = False

    @property
    def free(self) -> bool:
        """Return whether the worker waits for a candidate."""
        return self.ready and self.candidate is None and not self.leaving


class _Pool:
    """Spawned workers, and the loop that handles their messages.

    Args:
        study: The study, or a queue with the same methods.
        factory: Builds the evaluator of each worker.
        slots: One slot per worker.
        watch: Receives progress, and reports when to stop.
        script: Whether the workers import the running script, which may define the user's evaluation.
    """

    def __init__(
        self, study: Driven, factory: EvaluateFactory, slots: Sequence[Slot], watch: Watch, *, script: bool = True
    ) -> None:
        self._study, self._factory, self._watch = study, factory, watch
        self._slots, self._script = slots, script
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        self._stop = StopSwitch(self._context)
        self._workers: list[_Worker] = []
        self._any_ready = False
        self._prefetched = PrefetchedCandidates(study, len(slots))
        self._idle_lost, self._looked = 0, 0.0
        self._lost_workers, self._hangs = LostWorkers(len(slots)), Hangs()
        self._no_more = False
        self._stopped_at = math.inf
        watch.under_way = lambda: sum(w.work.seconds for w in self._workers if w.candidate is not None)

    def run(self) -> None:
        """Handle messages of the workers until no candidate is left and no trial is running."""
        try:
            for slot in self._slots:
                self._workers.append(self._start(slot))
            while self._step():
                pass
        except BaseException as error:
            self._end_workers(_HURRY_SECONDS if isinstance(error, KeyboardInterrupt) else _GRACE_SECONDS)
            with contextlib.suppress(Exception):  # raise the first error; an open trial is resumed later
                self._close_open_trials()
            raise
        self._end_workers(0.0 if self._overdue else _IDLE_SECONDS)
        self._close_open_trials()

    def _start(self, slot: Slot) -> _Worker:
        """Start a worker process.

        Raises:
            UsageError: The evaluate function cannot be pickled.
            _NotIsolatedError: The factory of an isolated worker cannot be pickled.
        """
        ours, theirs = self._context.Pipe()
        alone = not slot.devices  # daemons cannot start processes, but a worker on several devices has helper processes
        process = self._context.Process(
            target=work,
            args=(theirs, self._factory, slot.context(), self._stop.flag, () if self._script else foreign()),
            name=f"worker-{slot.index}",
            daemon=alone,
        )
        script = contextlib.nullcontext() if self._script else without_main()
        with environment(_thread_limit(slot.threads)), script:
            try:
                process.start()
            except Exception as error:  # what pickling raises: PicklingError, AttributeError, TypeError
                if not self._script:
                    raise _NotIsolatedError(f"what it trains cannot be pickled: {error}") from error
                raise UsageError(
                    f"the evaluate function cannot be sent to worker processes: {error}. "
                    "Define it at the top level of a module, or use workers=1."
                ) from error
        theirs.close()
        return _Worker(slot, process, ours)

    def _step(self) -> bool:
        """Handle the messages that have arrived; return false when everything is done."""
        if self._watch.should_stop() and not self._no_more:
            self._stop.set()
            self._no_more, self._stopped_at = True, time.monotonic()
        for worker in self._workers:
            if worker.free and not self._no_more:
                self._hand_out(worker)
        busy = [w for w in self._workers if w.candidate is not None]
        starting = [w for w in self._workers if not w.ready or w.leaving]
        if self._overdue or (not busy and (self._no_more or self._prefetched.dry or not starting)):
            return False
        sources: dict[Any, _Worker] = {}
        for worker in self._workers:
            sources[worker.pipe] = worker
            sources[worker.process.sentinel] = worker
        idle = self._prefetched.wanted and not self._no_more
        waiting = wait(list(sources), timeout=0 if idle else _POLL_SECONDS)
        for source in waiting:
            worker = sources[source]
            if worker in self._workers:
                self._serve(worker)
        self._end_hung()
        if idle and not waiting:
            self._prefetched.refill()
        return True

    @property
    def _overdue(self) -> bool:
        """Return whether the grace period after a stop request is over."""
        return time.monotonic() - self._stopped_at > _GRACE_SECONDS

    def _hand_out(self, worker: _Worker) -> None:
        """Send the next candidate, if there is one, to a worker."""
        candidate = self._prefetched.take()
        if candidate is None:
            return
        worker.candidate, worker.work, worker.pulse = candidate, UnreportedWork(), Pulse()
        with contextlib.suppress(BrokenPipeError, OSError):  # a dead worker is noticed through its sentinel
            worker.pipe.send(("run", candidate))

    def _serve(self, worker: _Worker) -> None:
        """Handle one message of a worker, or its end."""
        try:
            if not worker.pipe.poll():
                if worker.process.is_alive():
                    return
                raise EOFError
            message = worker.pipe.recv()
        except (EOFError, OSError):
            message = ("gone",)
        kind = message[0]
        if kind == "gone":
            self._process_ended(worker)
        elif kind == "ready":
            worker.ready = self._any_ready = True
        elif kind == "unfit":
            raise _NotIsolatedError(message[1])
        elif kind == "leaving":
            worker.leaving = True
        elif kind == "pause":
            worker.pulse.rest()
        elif kind == "progress" and worker.candidate is not None:
            self._hangs.beat(worker.pulse)
            worker.work.epoch = message[1]
            line = _line(worker.candidate, message[1], message[2], message[3])
            self._watch.progress(line, worker.slot.index)
        elif kind == "waits" and worker.candidate is not None:
            worker.work.leave_out(message[2])
            worker.pulse.excuse()
            self._watch.waits(_waiting(worker.candidate, worker.work, message[1]), message[2], worker.slot.index)
        elif kind == "report" and worker.candidate is not None:
            decision = self._study.report(worker.candidate, message[1], seconds=worker.work.reported(message[1]))
            if self._watch.should_stop():  # also stops an evaluation that never calls should_stop
                decision = Decision.STOP
            worker.work.begin()
            worker.pulse.begin()
            with contextlib.suppress(BrokenPipeError, OSError):
                worker.pipe.send(("decision", decision))
        elif kind in ("done", "error"):
            stopping = self._no_more or self._watch.should_stop()
            early = None if stopping else EndedEarlyError()  # ignored by the study if it decided STOP
            self._close(worker, unpack_error(message) if kind == "error" else early)
            self._lost_workers.survived()
            self._idle_lost = 0

    def _close(self, worker: _Worker, error: BaseException | None) -> None:
        """Close the trial of a worker, after giving the worker a prefetched candidate."""
        if worker.candidate is not None:
            candidate, worker.candidate = worker.candidate, None
            seconds, epochs = worker.work.seconds, worker.work.epoch
            lives = worker in self._workers and worker.free and worker.process.is_alive()
            if len(self._prefetched) and lives and not self._no_more:
                self._hand_out(worker)  # first, so that it works while the driver stores the result
            self._study.close(candidate, error, seconds=seconds, epochs=epochs)
            self._prefetched.ended(candidate)
            self._watch.ended(worker.slot.index)

    def _end_hung(self) -> None:
        """Kill workers whose training hangs; their trials may be retried by other workers."""
        now = time.monotonic()
        if self._no_more or now - self._looked < _POLL_SECONDS:
            return
        self._looked = now
        for worker in [w for w in self._workers if w.candidate is not None]:
            why = self._hangs.verdict(worker.pulse)
            if why and not worker.pipe.poll():  # otherwise read its message first
                worker.process.kill()
                self._lose(worker, WorkerLostError(why, "HUNG"))

    def _process_ended(self, worker: _Worker) -> None:
        """Handle the end of a worker's process; the study decides whether its trial is retried.

        Raises:
            UsageError: The first workers ended with an error while they started.
        """
        worker.process.join(timeout=5)
        code = worker.process.exitcode
        if not self._any_ready and code is not None and code > 0:
            self._workers.remove(worker)
            worker.pipe.close()
            raise UsageError(
                f"worker {worker.slot.index} {ending(code)} before it was ready; the output above says why."
                + (f" {GUARD} With workers=1 there are no worker processes." if self._script else "")
            )
        self._lose(worker, loss_of(code))

    def _lose(self, worker: _Worker, loss: WorkerLostError) -> None:
        """Record the loss of a worker, and start another one in its slot.

        Raises:
            UsageError: Too many workers were lost in a row; the cause is most likely the set-up.
        """
        worker.process.join(timeout=5)
        self._workers.remove(worker)
        worker.pipe.close()
        if worker.candidate is not None and self._watch.should_stop() and not loss.by_student:
            self._close(worker, None)  # the signal that stops the search has reached its workers too
        elif worker.candidate is not None:
            candidate = worker.candidate
            words = student_words(candidate.student)
            self._watch.stage("worker", f"#{candidate.number} {words}: {loss}; another worker takes its place")
            self._lost_workers.add(candidate, str(loss))
            self._close(worker, loss)
            if error := self._lost_workers.error():
                raise error
        elif not worker.leaving:
            self._idle_lost += 1
            if self._idle_lost >= _MAX_IDLE_LOST * len(self._slots):
                raise UsageError(f"{self._idle_lost} workers were lost in a row while they had no trial ({loss}).")
        if not self._no_more:
            self._workers.append(self._start(worker.slot))

    def _end_workers(self, grace: float) -> None:
        """Tell all workers to quit; kill those that still run after ``grace`` seconds, or on an interrupt."""
        self._no_more = True
        self._stop.set()
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.pipe.send(("quit",))
        until = time.monotonic() + grace
        try:
            for worker in self._workers:
                if worker.ready:  # a worker that is still starting has nothing to save
                    worker.process.join(max(0.0, until - time.monotonic()))
        finally:
            for worker in self._workers:
                worker.process.kill()  # no effect on a process that has ended
            for worker in self._workers:
                worker.process.join()
                worker.pipe.close()

    def _close_open_trials(self) -> None:
        """Close all open trials as interrupted; a resumed study continues them."""
        for worker in self._workers:
            self._close(worker, None)
        self._workers = []
        self._prefetched.give_back()


def _thread_limit(threads: int) -> dict[str, str]:
    """Return the environment variables that limit the threads of a worker; they are read on import."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _line(candidate: Candidate, epoch: float, epochs: float, metrics: Mapping[str, float]) -> WorkerLine:
    return WorkerLine(candidate.number, student_words(candidate.student), epoch, epochs, dict(metrics))


def _waiting(candidate: Candidate, work: UnreportedWork, what: str) -> WorkerLine:
    return WorkerLine(candidate.number, student_words(candidate.student), work.epoch, 0.0, waiting=what)
