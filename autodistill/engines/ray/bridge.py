"""Bridge between Ray Tune and the passive study: it passes on candidates, reports and ends of trials.

It is plain Python without any import of Ray; ``tune.py`` adapts its methods to the interfaces of Tune. Only the study
holds state: Tune's own records of a trial are never read back.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autodistill.core.errors import EndedEarlyError, WorkerLostError
from autodistill.core.records import Candidate, Decision, Report
from autodistill.core.wording import student_words
from autodistill.engines.driving.driven import Driven
from autodistill.engines.driving.lost_workers import LostWorkers
from autodistill.engines.driving.prefetch import PrefetchedCandidates
from autodistill.engines.driving.unreported_work import UnreportedWork
from autodistill.engines.driving.worker import unpack_error
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.monitor.worker_line import WorkerLine
from autodistill.search.study.study import MAX_ATTEMPTS

GRACE_SECONDS = 30.0  # time for stopped workers to finish their batch and write a checkpoint

Message = tuple[Any, ...]
"""Message of a worker, as in ``driving/worker.py``: ``("report", Report)``, ``("done",)`` or ``("error", …)``."""


@dataclass
class RayTrial:
    """A candidate that a worker of the cluster evaluates.

    Attributes:
        candidate: The candidate.
        slot: Number of its slot, which is free again when the job ends.
        started: Whether a worker has begun it.
        lost: Number of nodes that were lost while they evaluated it.
        work: Work since its last report.
    """

    candidate: Candidate
    slot: int
    started: bool = False
    lost: int = 0
    work: UnreportedWork = field(default_factory=UnreportedWork)


class StudyBridge:
    """State of one search on a cluster, in the driver. Jobs are identified by Tune's trial id.

    Args:
        study: The study, or a queue with the same methods.
        watch: Receives progress, and reports when to stop.
        slots: Number of workers that run at once.
        stop_workers: Called once, when running trials should save and stop.
        grace: Seconds after which trials that have not stopped are abandoned.

    Attributes:
        failure: First error that should end the search; ``None`` if there is none.
    """

    def __init__(
        self,
        study: Driven,
        watch: Watch,
        slots: int,
        *,
        stop_workers: Callable[[], None] = lambda: None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._study, self._watch, self._slots = study, watch, slots
        self._stop_workers, self._grace = stop_workers, grace
        self._jobs: dict[str, RayTrial] = {}
        self._again: list[RayTrial] = []  # jobs whose node was lost; they continue from their last checkpoint
        self._prefetched = PrefetchedCandidates(study, slots)
        self._lost_workers = LostWorkers(slots)
        self._stopped_at: float | None = None
        self.failure: BaseException | None = None
        watch.under_way = lambda: sum(job.work.seconds for job in self._jobs.values() if job.started)

    @property
    def finished(self) -> bool:
        """Return whether nothing runs and no further job will start."""
        return not self._jobs and not self._again and (self._prefetched.dry or self._stopping)

    @property
    def overdue(self) -> bool:
        """Return whether the search should stop, and no worker has begun or the grace period is over."""
        if self._stopped_at is None or not self._jobs:
            return False
        return not any(job.started for job in self._jobs.values()) or time.monotonic() - self._stopped_at > self._grace

    def hand_out(self, key: str) -> RayTrial | None:
        """Return the next job; ``None`` if every slot is taken or the study has no candidate."""
        self.tick()
        if self._stopping or len(self._jobs) >= self._slots:
            return None
        job = self._again.pop(0) if self._again else self._ask()
        if job is not None:
            taken = {other.slot for other in self._jobs.values()}
            job.slot = next(i for i in range(self._slots) if i not in taken)
            self._jobs[key] = job
        return job

    def started(self, key: str) -> None:
        """Record that a worker has begun the job."""
        if key in self._jobs:
            self._jobs[key].started = True
            self._jobs[key].work.begin()

    def report(self, key: str, report: Report) -> Decision:
        """Pass a report to the study and return its decision, or STOP while the search is ending."""
        job = self._jobs.get(key)
        if job is None:
            return Decision.STOP
        decision = Decision.STOP
        with self._keeping_failure():
            decision = self._study.report(job.candidate, report, seconds=job.work.reported(report))
            job.candidate = replace(job.candidate, start_rung=max(job.candidate.start_rung, report.rung))
        job.work.begin()
        return Decision.STOP if self._stopping else decision

    def progress(self, number: int, epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
        """Record the training progress of the candidate ``number``."""
        for job in self._jobs.values():
            if job.candidate.number == number:
                job.work.epoch = epoch
                line = WorkerLine(number, student_words(job.candidate.student), epoch, epochs, dict(metrics))
                with self._keeping_failure():
                    self._watch.progress(line, job.slot)

    def waits(self, number: int, what: str, seconds: float) -> None:
        """Record that the candidate ``number`` waits for another process, or continues after ``seconds``."""
        for job in self._jobs.values():
            if job.candidate.number == number:
                job.work.leave_out(seconds)
                line = WorkerLine(number, student_words(job.candidate.student), job.work.epoch, 0.0, waiting=what)
                with self._keeping_failure():
                    self._watch.waits(line, seconds, job.slot)

    def end(self, key: str, message: Message) -> None:
        """Close a trial with its worker's last message; a report that was answered with STOP counts as done."""
        self._lost_workers.survived()
        early = EndedEarlyError() if message[0] == "done" and not self._stopping else None
        self._close(key, unpack_error(message) if message[0] == "error" else early)

    def lose(self, key: str, why: str, *, node: bool, by_student: bool = True) -> None:
        """Handle the death of a worker.

        If its node was lost, the trial runs again from its checkpoint. Otherwise the study decides.

        Args:
            key: Identifier of the job.
            why: Cause in words.
            node: Whether the node was lost, or the worker could not have trained any student.
            by_student: Whether the student may be the cause, see :class:`WorkerLostError`.
        """
        job = self._jobs.get(key)
        if job is None:
            return
        if node and not self._stopping and job.lost + 1 < MAX_ATTEMPTS:
            del self._jobs[key]
            self._again.append(RayTrial(job.candidate, job.slot, lost=job.lost + 1))
            return
        if not self._stopping:
            self._lost_workers.add(job.candidate, why)
        self._close(key, None if self._stopping else WorkerLostError(why, by_student=by_student and not node))
        self.failure = self.failure or self._lost_workers.error()

    def tick(self) -> None:
        """Check whether the search should stop, and if so stop the workers once. Called often."""
        if self._stopped_at is None and (self.failure is not None or self._watch.should_stop()):
            self._stopped_at = time.monotonic()
            self._stop_workers()

    def leave(self) -> None:
        """Close all open trials as interrupted; a resumed study continues them."""
        for number, job in enumerate(self._again):
            self._jobs[f"again-{number}"] = job
        self._again = []
        for key in list(self._jobs):
            self._close(key, None)
        with self._keeping_failure():
            self._prefetched.give_back()

    def refill(self) -> None:
        """Prefetch a candidate if useful. Called when no message waits."""
        if self._prefetched.wanted and not self._stopping:
            with self._keeping_failure():
                self._prefetched.refill()

    @property
    def _stopping(self) -> bool:
        return self._stopped_at is not None or self.failure is not None

    def _ask(self) -> RayTrial | None:
        candidate = None
        with self._keeping_failure():
            candidate = self._prefetched.take()
        return RayTrial(candidate, 0) if candidate is not None else None

    def _close(self, key: str, error: BaseException | None) -> None:
        job = self._jobs.pop(key, None)
        if job is None:
            return
        with self._keeping_failure():
            self._study.close(job.candidate, error, seconds=job.work.seconds, epochs=job.work.epoch)
            self._prefetched.ended(job.candidate)
            self._watch.ended(job.slot)

    @contextlib.contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        """Keep the first error of the study, to raise it after Tune has ended; Tune would wrap it in its own error."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
