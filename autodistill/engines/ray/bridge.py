"""The desk between Ray Tune and the passive study: hands out candidates, takes reports, files ends.

It is plain Python and knows nothing of Ray; ``ray_tune.py`` gives its methods the shapes that Tune calls. The study is
the only truth: what Tune remembers of a trial is never read back.
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
from autodistill.engines.driving.lost_workers import Casualties
from autodistill.engines.driving.prefetch import PrefetchedCandidates
from autodistill.engines.driving.unreported_work import UnreportedWork
from autodistill.engines.driving.worker import unpack_error
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.monitor.worker_line import WorkerLine
from autodistill.search.study.study import MAX_ATTEMPTS

GRACE_SECONDS = 30.0  # a worker asked to stop may finish its batch and write a checkpoint

Message = tuple[Any, ...]
"""What a worker reports, as in ``worker.py``: ``("report", Report)``, ``("done",)`` or ``("error", …)``."""


@dataclass
class RayTrial:
    """A candidate that a worker of the cluster is evaluating.

    Attributes:
        candidate: what it evaluates.
        slot: number of its slot; free again when the job ends.
        started: a worker has taken it up.
        lost: nodes it has outlived.
        work: what it has done since its last report.
    """

    candidate: Candidate
    slot: int
    started: bool = False
    lost: int = 0
    work: UnreportedWork = field(default_factory=UnreportedWork)


class StudyBridge:
    """One search on a cluster, as its driver sees it. Jobs are known by Tune's trial id.

    Args:
        study: asked, reported to, closed.
        watch: told about progress, asked whether to stop.
        slots: workers that run at once.
        stop_workers: called once, when running trials should save and stop.
        grace: seconds after that until trials that go on are given up.
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
        self._again: list[RayTrial] = []  # their node was lost; they go on from their last checkpoint
        self._prefetched = PrefetchedCandidates(study, slots)
        self._casualties = Casualties(slots)
        self._stopped_at: float | None = None
        self.failure: BaseException | None = None
        watch.under_way = lambda: sum(job.work.seconds for job in self._jobs.values() if job.started)

    @property
    def finished(self) -> bool:
        """Nothing runs and nothing more will."""
        return not self._jobs and not self._again and (self._prefetched.dry or self._stopping)

    @property
    def overdue(self) -> bool:
        """Asked to stop, and either nobody has begun or the grace is over."""
        if self._stopped_at is None or not self._jobs:
            return False
        return not any(job.started for job in self._jobs.values()) or time.monotonic() - self._stopped_at > self._grace

    def hand_out(self, key: str) -> RayTrial | None:
        """The next job, or ``None`` while every slot is taken or the study has nothing to offer."""
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
        """A worker took the job up."""
        if key in self._jobs:
            self._jobs[key].started = True
            self._jobs[key].work.begin()

    def report(self, key: str, report: Report) -> Decision:
        """Pass a rung to the study; a search that is ending also stops its trials between two rungs."""
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
        """A worker's epoch went on; ``number`` is the candidate's."""
        for job in self._jobs.values():
            if job.candidate.number == number:
                job.work.epoch = epoch
                line = WorkerLine(number, student_words(job.candidate.student), epoch, epochs, dict(metrics))
                with self._keeping_failure():
                    self._watch.progress(line, job.slot)

    def waits(self, number: int, what: str, seconds: float) -> None:
        """A worker waits for another process, or goes on; ``number`` is the candidate's."""
        for job in self._jobs.values():
            if job.candidate.number == number:
                job.work.leave_out(seconds)
                line = WorkerLine(number, student_words(job.candidate.student), job.work.epoch, 0.0, waiting=what)
                with self._keeping_failure():
                    self._watch.waits(line, seconds, job.slot)

    def end(self, key: str, message: Message) -> None:
        """A trial ended, with its worker's last message (a report that was answered with STOP counts as done)."""
        self._casualties.survived()
        early = EndedEarlyError() if message[0] == "done" and not self._stopping else None
        self._close(key, unpack_error(message) if message[0] == "error" else early)

    def lose(self, key: str, why: str, *, node: bool, by_student: bool = True) -> None:
        """A worker died: with its node, the trial runs again from its checkpoint; on its own, the study decides.

        Args:
            key: of the job.
            why: in words.
            node: it died with its node, or was of no more use whatever it had to train.
            by_student: see :class:`WorkerLostError`.
        """
        job = self._jobs.get(key)
        if job is None:
            return
        if node and not self._stopping and job.lost + 1 < MAX_ATTEMPTS:
            del self._jobs[key]
            self._again.append(RayTrial(job.candidate, job.slot, lost=job.lost + 1))
            return
        if not self._stopping:
            self._casualties.add(job.candidate, why)
        self._close(key, None if self._stopping else WorkerLostError(why, by_student=by_student and not node))
        self.failure = self.failure or self._casualties.error()

    def tick(self) -> None:
        """Called often: notices that the search should stop."""
        if self._stopped_at is None and (self.failure is not None or self._watch.should_stop()):
            self._stopped_at = time.monotonic()
            self._stop_workers()

    def leave(self) -> None:
        """File whatever is still open as interrupted; it goes on when the study is resumed."""
        for number, job in enumerate(self._again):
            self._jobs[f"again-{number}"] = job
        self._again = []
        for key in list(self._jobs):
            self._close(key, None)
        with self._keeping_failure():
            self._prefetched.give_back()

    def refill(self) -> None:
        """Called when nothing waits to be served: asks for a proposal ahead of need."""
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
        """Tune would wrap an error of the study in its own; the first is kept and raised after Tune has ended."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
