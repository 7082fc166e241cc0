"""The queue of trainings that an engine drives as it drives a study (``engines/driven.py``).

Nothing is proposed, compared or stopped; every run goes to its last epoch. Finished runs are on disk
(``training/retraining.py``), so the queue remembers nothing between two verifications.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autodistill.core.budget import format_seconds
from autodistill.core.errors import EndedEarlyError, InterruptedTrialError, WorkerLostError
from autodistill.core.records import Candidate, Decision, Report, State
from autodistill.engines.monitor.watch import Snapshot, Watch
from autodistill.engines.monitor.worker_line import WorkerLine

TELLING = 0.1  # share of a run after which its own pace corrects what was thought
MAX_ATTEMPTS = 2  # a run whose worker was lost is begun once more: it goes on from its checkpoint


@dataclass(frozen=True)
class VerifyJob:
    """One run that is still to be trained.

    Attributes:
        candidate: what is trained.
        seconds: what it is thought to take; 0 when unknown.
    """

    candidate: Candidate
    seconds: float = 0.0


@dataclass(frozen=True)
class _Stretch:
    """What is known of a run that is being trained, from when it was first heard of: it may go on from a checkpoint.

    Attributes:
        points: seconds of the clock and share of its epochs that was done then.
    """

    points: tuple[tuple[float, float], ...]

    @property
    def share(self) -> float:
        """Share of its epochs that is done."""
        return self.points[-1][1]

    def pace(self) -> tuple[float, float]:
        """Seconds and share of the later half of what was seen: the first epochs fill caches, and stalls are forgotten.

        Both are 0 until it is well under way.
        """
        first, last = self.points[0][1], self.points[-1][1]
        if last - first < TELLING:
            return 0.0, 0.0
        begin = max(point for point in self.points if point[1] <= (first + last) / 2)
        return self.points[-1][0] - begin[0], last - begin[1]


class Queue:
    """The runs of a verification, the most important first.

    Args:
        name: the study's, for engines that give their work a name.
        jobs: what is still to be trained.
        workers: how many are trained at once, for the time that is left.
        enough: asked before each run; true ends the queue.
        directory: the study's folder, for engines that bring files there.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        name: str,
        jobs: Sequence[VerifyJob],
        *,
        workers: int = 1,
        enough: Callable[[], bool] = lambda: False,
        directory: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.directory = name, directory
        self.failures: dict[int, str] = {}
        self._waiting = list(jobs)
        self._jobs = {job.candidate.number: job for job in jobs}
        self._attempts: dict[int, int] = {}
        self._reached: set[int] = set()
        self._took: dict[int, tuple[float, float]] = {}
        self._running: dict[int, _Stretch] = {}
        self._workers, self._enough, self._clock = workers, enough, clock
        self.done = 0

    @property
    def total(self) -> int:
        """Runs that were to be trained."""
        return len(self._jobs)

    def ask(self) -> Candidate | None:
        """The next run; ``None`` when all are handed out, or there is no time for more."""
        if not self._waiting or self._enough():
            return None
        job = self._waiting.pop(0)
        number = job.candidate.number
        self._attempts[number] = self._attempts.get(number, 0) + 1
        return job.candidate

    def progress(self, number: int, share: float) -> None:
        """A run came to ``share`` of its epochs."""
        if number in self._reached:  # a word that was under way while the run ended
            return
        before = self._running[number].points if number in self._running else ()
        self._running[number] = _Stretch((*before, (self._clock(), share)))

    def report(self, candidate: Candidate, report: Report, *, seconds: float = 0.0) -> Decision:
        """A run showed its costs, or is finished."""
        del seconds  # training tells its own
        if report.rung > 0:
            self._running.pop(candidate.number, None)
            self._reached.add(candidate.number)
            self._took[candidate.number] = (report.seconds, self._jobs[candidate.number].seconds)
        return Decision.CONTINUE

    def close(
        self, candidate: Candidate, error: BaseException | None = None, *, seconds: float = 0.0, epochs: float = 0.0
    ) -> State:
        """A run ended; one whose worker died is tried again."""
        del seconds, epochs  # no budget is charged with them
        number = candidate.number
        self._running.pop(number, None)
        if (error is None or isinstance(error, EndedEarlyError)) and number in self._reached:  # nobody stops a run
            self.done += 1
            return State.COMPLETE
        if error is None or isinstance(error, InterruptedTrialError):
            return State.PARTIAL
        if isinstance(error, WorkerLostError) and self._attempts[number] < MAX_ATTEMPTS:
            self._waiting.insert(0, self._jobs[number])
            return State.PARTIAL
        self.failures[number] = str(error) or type(error).__name__
        return State.FAIL

    @property
    def share(self) -> float:
        """Share of the runs that is done, in [0, 1]; one that is being trained counts by its epochs."""
        return (self.done + sum(run.share for run in self._running.values())) / max(self.total, 1)

    def seconds_left(self) -> float | None:
        """About how long the rest takes, corrected by how long the runs took so far; ``None`` when unknown.

        No shorter than the longest run, which is trained by one worker however many there are.
        """
        jobs = [job for number, job in self._jobs.items() if number not in (*self._reached, *self.failures)]
        pace = self._pace()
        if pace is None and not all(job.seconds for job in jobs):
            return None
        rest = [job.seconds * (1 - self._share_of(job)) * (pace or 1.0) for job in jobs]
        return max(sum(rest) / self._workers, max(rest, default=0.0))

    def _pace(self) -> float | None:
        """Seconds that a second of what was thought takes, by finished runs and those well under way."""
        took = list(self._took.values())
        for number, run in self._running.items():
            seconds, share = run.pace()
            took.append((seconds, share * self._jobs[number].seconds))
        real, thought = (sum(column) for column in zip(*took, strict=True)) if took else (0.0, 0.0)
        return real / thought if thought > 0 else None

    def _share_of(self, job: VerifyJob) -> float:
        run = self._running.get(job.candidate.number)
        return 0.0 if run is None else run.share


class QueueWatch(Watch):
    """Tells how far a queue is, in the words of a search's progress.

    Args:
        callback: called with a snapshot, at most every ``interval`` seconds and at every end of a run.
        queue: what is told about.
        words: run to what it is, for people.
    """

    def __init__(self, callback: Callable[[Snapshot], None] | None, queue: Queue, words: Mapping[int, str]) -> None:
        super().__init__(callback)
        self._queue, self._words = queue, words

    def progress(self, line: WorkerLine, worker: int = 0) -> None:
        """A run's epoch went on, and with it the time that is left."""
        self._queue.progress(line.number, line.epoch / line.epochs)
        super().progress(line, worker)

    def update(self, stage: str = "verify") -> None:
        """Pass a snapshot of the queue on; there is no study behind it."""
        self._last = time.monotonic()
        if self._callback is None:
            return
        queue = self._queue
        lines = tuple(self._lines[key] for key in sorted(self._lines))
        message = f"{queue.done} of {queue.total} runs"
        if queue.failures:
            message += f", {len(queue.failures)} failed"
        left = queue.seconds_left()
        if left is not None and queue.done < queue.total:
            message += f", about {format_seconds(round(left))} left"
        message += "".join(f" · {self._said(line)}" for line in lines)
        self._callback(Snapshot(stage, message, queue.share, workers=lines))

    def _said(self, line: WorkerLine) -> str:
        return f"{self._words.get(line.number, line.what)}, epoch {line.epoch:.3g}/{line.epochs:g}"
