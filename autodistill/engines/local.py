"""Engine ``local``: spawned processes that share nothing but pipes; a user's own evaluation, alone, in this process."""

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
from multiprocessing.synchronize import Event
from typing import Any

from autodistill.core.errors import AutodistillError, EndedEarlyError, UsageError, WorkerLostError
from autodistill.core.processes import GUARD, without_main
from autodistill.core.records import Candidate, Decision, Evaluate, EvaluateFactory, Report
from autodistill.core.registry import foreign
from autodistill.core.wording import student_words
from autodistill.engines.driving.driven import Driven
from autodistill.engines.driving.environment import environment
from autodistill.engines.driving.hangs import Hangs, Pulse
from autodistill.engines.driving.lost_workers import Casualties, ending, loss_of
from autodistill.engines.driving.prefetch import PrefetchedCandidates
from autodistill.engines.driving.slots import Slot
from autodistill.engines.driving.unreported_work import UnreportedWork
from autodistill.engines.driving.worker import Isolated, reports_of, unpack_error, work
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.monitor.worker_line import WorkerLine

IN_PROCESS = "AUTODISTILL_IN_PROCESS"
"""Environment variable: with ``1``, a single worker trains in the process of the search, for breakpoints."""

_POLL_SECONDS = 0.25
_GRACE_SECONDS = 30.0  # workers asked to stop may finish their batch and write a checkpoint, all at the same time
_HURRY_SECONDS = 3.0  # the same after a second Ctrl-C
_IDLE_SECONDS = 5.0  # for workers that have nothing to do
_MAX_IDLE_LOST = 3  # workers lost in a row without a trial, per slot, before the search gives up


def run(study: Driven, factory: EvaluateFactory, slots: Sequence[Slot], watch: Watch) -> None:
    """Drive the study until it has no more candidates or is asked to stop."""
    if len(slots) > 1:
        _Pool(study, factory, slots, watch).run()
        return
    if isinstance(factory, Isolated) and os.environ.get(IN_PROCESS) != "1":
        try:
            _check_isolation(slots[0])
            _Pool(study, factory, slots, watch, script=False).run()
            return
        except _NotIsolatedError as error:
            watch.stage("worker", f"trains in this process, which a crash would end: {error}")
    _run_here(study, factory, slots[0], watch)


class _NotIsolatedError(AutodistillError):
    """The only worker cannot be a process of its own; no trial has begun."""


def _check_isolation(slot: Slot) -> None:
    """See that a worker can do without the driver's script.

    Raises:
        _NotIsolatedError: it cannot.
    """
    if multiprocessing.current_process().daemon:
        raise _NotIsolatedError("it is a daemon of multiprocessing, which may have no children")
    here = [one.name for one in foreign() if one.module == "__main__"]
    if here:
        raise _NotIsolatedError(f"the script itself registers {', '.join(here)}; a module that it imports may do so")
    if foreign() and slot.devices:
        raise _NotIsolatedError("names of your own are registered, and a trial is trained on several devices")


def _run_here(study: Driven, factory: EvaluateFactory, slot: Slot, watch: Watch) -> None:
    """One worker in this process: breakpoints and tracebacks work as in any script."""
    here = _Here(study, watch)
    evaluate = factory(slot.context(progress=here.progress, should_stop=watch.should_stop, waits=here.waits))
    while not watch.should_stop():
        candidate = study.ask()
        if candidate is None:
            return
        here.run(evaluate, candidate)


class _Here:
    """The worker in this process, where errors of an evaluation and of the study itself meet and must be told apart."""

    def __init__(self, study: Driven, watch: Watch) -> None:
        self._study, self._watch = study, watch
        self._candidate: Candidate | None = None
        self._work = UnreportedWork()
        self._failure: Exception | None = None
        watch.under_way = lambda: self._work.seconds if self._candidate is not None else 0.0

    def progress(self, epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
        """Called by whatever trains: what fails here would else look like an error of the training."""
        if self._candidate is None:
            return
        self._work.epoch = epoch
        try:
            self._watch.progress(_line(self._candidate, epoch, epochs, metrics))
        except Exception as error:
            self._failure = error
            raise

    def waits(self, what: str, seconds: float) -> None:
        """Called while the trial waits for another process, which is no work."""
        if self._candidate is not None:
            self._work.leave_out(seconds)
            self._watch.waits(_waiting(self._candidate, self._work, what), seconds)

    def run(self, evaluate: Evaluate, candidate: Candidate) -> None:
        """One trial; only what its evaluation raises fails it, everything else ends the search."""
        self._candidate, self._work = candidate, UnreportedWork()
        errors: list[BaseException] = []
        try:
            with contextlib.closing(_reports(evaluate, candidate, errors, self._watch)) as reports:
                for report in reports:
                    decision = self._study.report(candidate, report, seconds=self._work.told(report))
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
            with contextlib.suppress(Exception):  # the first error is told; a trial that stays open is taken up again
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
        """It waits for a candidate."""
        return self.ready and self.candidate is None and not self.leaving


class _Pool:
    """Spawned workers and the loop that serves them.

    Args:
        study: what is driven.
        factory: of the evaluators.
        slots: one worker each.
        watch: progress and the wish to stop.
        script: the workers import the script that runs, where the user's evaluation may be.
    """

    def __init__(
        self, study: Driven, factory: EvaluateFactory, slots: Sequence[Slot], watch: Watch, *, script: bool = True
    ) -> None:
        self._study, self._factory, self._watch = study, factory, watch
        self._slots, self._script = slots, script
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        self._stop: Event = self._context.Event()
        self._workers: list[_Worker] = []
        self._any_ready = False
        self._prefetched = PrefetchedCandidates(study, len(slots))
        self._idle_lost, self._looked = 0, 0.0
        self._casualties, self._hangs = Casualties(len(slots)), Hangs()
        self._no_more = False
        self._stopped_at = math.inf
        watch.under_way = lambda: sum(w.work.seconds for w in self._workers if w.candidate is not None)

    def run(self) -> None:
        """Serve the workers until no candidate is left and none is running."""
        try:
            for slot in self._slots:
                self._workers.append(self._start(slot))
            while self._step():
                pass
        except BaseException as error:
            self._end_workers(_HURRY_SECONDS if isinstance(error, KeyboardInterrupt) else _GRACE_SECONDS)
            with contextlib.suppress(Exception):  # the first error is told; a trial that stays open is taken up again
                self._file_open()
            raise
        self._end_workers(0.0 if self._overdue else _IDLE_SECONDS)
        self._file_open()

    def _start(self, slot: Slot) -> _Worker:
        ours, theirs = self._context.Pipe()
        alone = not slot.devices  # a worker with helpers must be allowed to start them
        process = self._context.Process(
            target=work,
            args=(theirs, self._factory, slot.context(), self._stop, () if self._script else foreign()),
            name=f"worker-{slot.index}",
            daemon=alone,
        )
        script = contextlib.nullcontext() if self._script else without_main()
        with environment(_thread_limit(slot.threads)), script:
            try:
                process.start()
            except Exception as error:  # whatever spawning could not send: PicklingError, AttributeError, TypeError
                if not self._script:
                    raise _NotIsolatedError(f"what it trains cannot be sent: {error}") from error
                raise UsageError(
                    f"the evaluate function cannot be sent to worker processes: {error}. "
                    "Define it at the top level of a module, or use workers=1."
                ) from error
        theirs.close()
        return _Worker(slot, process, ours)

    def _step(self) -> bool:
        """Serve what is ready; false when everything is done."""
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
        """Asked to stop, and the grace is over."""
        return time.monotonic() - self._stopped_at > _GRACE_SECONDS

    def _hand_out(self, worker: _Worker) -> None:
        candidate = self._prefetched.take()
        if candidate is None:
            return
        worker.candidate, worker.work, worker.pulse = candidate, UnreportedWork(), Pulse()
        with contextlib.suppress(BrokenPipeError, OSError):  # its death is seen through the sentinel
            worker.pipe.send(("run", candidate))

    def _serve(self, worker: _Worker) -> None:
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
            self._bury(worker)
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
            decision = self._study.report(worker.candidate, message[1], seconds=worker.work.told(message[1]))
            if self._watch.should_stop():  # between two rungs, for an evaluation that does not ask by itself
                decision = Decision.STOP
            worker.work.begin()
            worker.pulse.begin()
            with contextlib.suppress(BrokenPipeError, OSError):
                worker.pipe.send(("decision", decision))
        elif kind in ("done", "error"):
            asked = self._no_more or self._watch.should_stop()
            early = None if asked else EndedEarlyError()  # counts only where the study has not said stop
            self._close(worker, unpack_error(message) if kind == "error" else early)
            self._casualties.survived()
            self._idle_lost = 0

    def _close(self, worker: _Worker, error: BaseException | None) -> None:
        if worker.candidate is not None:
            candidate, worker.candidate = worker.candidate, None
            seconds, epochs = worker.work.seconds, worker.work.epoch
            lives = worker in self._workers and worker.free and worker.process.is_alive()
            if len(self._prefetched) and lives and not self._no_more:
                self._hand_out(worker)  # it works on while the driver keeps the books
            self._study.close(candidate, error, seconds=seconds, epochs=epochs)
            self._prefetched.ended(candidate)
            self._watch.ended(worker.slot.index)

    def _end_hung(self) -> None:
        """End workers whose trainings stand still; their trials go on in others."""
        now = time.monotonic()
        if self._no_more or now - self._looked < _POLL_SECONDS:
            return
        self._looked = now
        for worker in [w for w in self._workers if w.candidate is not None]:
            why = self._hangs.verdict(worker.pulse)
            if why and not worker.pipe.poll():  # else what it has said waits to be read
                worker.process.kill()
                self._lose(worker, WorkerLostError(why, "HUNG"))

    def _bury(self, worker: _Worker) -> None:
        """A worker's process ended; where it was at work, the study decides whether its trial is tried again."""
        worker.process.join(timeout=5)
        code = worker.process.exitcode
        if not self._any_ready and code is not None and code > 0:
            self._workers.remove(worker)
            worker.pipe.close()
            raise UsageError(
                f"worker {worker.slot.index} {ending(code)} before it was ready; it has printed why."
                + (f" {GUARD} With workers=1 there are no worker processes." if self._script else "")
            )
        self._lose(worker, loss_of(code))

    def _lose(self, worker: _Worker, loss: WorkerLostError) -> None:
        """File the loss of a worker, and start another in its slot: the search goes on.

        Raises:
            UsageError: so many different students lost theirs in a row that it is hardly their fault.
        """
        worker.process.join(timeout=5)
        self._workers.remove(worker)
        worker.pipe.close()
        if worker.candidate is not None and self._watch.should_stop() and not loss.by_student:
            self._close(worker, None)  # what asked the search to stop has reached its workers, too
        elif worker.candidate is not None:
            candidate = worker.candidate
            words = student_words(candidate.student)
            self._watch.stage("worker", f"#{candidate.number} {words}: {loss}; another worker takes its place")
            self._casualties.add(candidate, str(loss))
            self._close(worker, loss)
            if error := self._casualties.error():
                raise error
        elif not worker.leaving:
            self._idle_lost += 1
            if self._idle_lost >= _MAX_IDLE_LOST * len(self._slots):
                raise UsageError(f"{self._idle_lost} workers were lost in a row while they had no trial ({loss}).")
        if not self._no_more:
            self._workers.append(self._start(worker.slot))

    def _end_workers(self, grace: float) -> None:
        """Ask all workers to quit; kill those still there after ``grace`` seconds, or when that is interrupted."""
        self._no_more = True
        self._stop.set()
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.pipe.send(("quit",))
        until = time.monotonic() + grace
        try:
            for worker in self._workers:
                if worker.ready:  # one that is still starting has nothing to save
                    worker.process.join(max(0.0, until - time.monotonic()))
        finally:
            for worker in self._workers:
                worker.process.kill()  # nothing happens to one that has ended
            for worker in self._workers:
                worker.process.join()
                worker.pipe.close()

    def _file_open(self) -> None:
        """File what the workers have left open as interrupted; it goes on when the study is resumed."""
        for worker in self._workers:
            self._close(worker, None)
        self._workers = []
        self._prefetched.give_back()


def _thread_limit(threads: int) -> dict[str, str]:
    """What spawned workers read about their threads, before they import anything heavy."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _line(candidate: Candidate, epoch: float, epochs: float, metrics: Mapping[str, float]) -> WorkerLine:
    return WorkerLine(candidate.number, student_words(candidate.student), epoch, epochs, dict(metrics))


def _waiting(candidate: Candidate, work: UnreportedWork, what: str) -> WorkerLine:
    return WorkerLine(candidate.number, student_words(candidate.student), work.epoch, 0.0, waiting=what)
