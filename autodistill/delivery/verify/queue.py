"""A queue of trainings with the interface of a study, so that any engine can run it (``engines/driving``).

No run is proposed, compared or stopped; every run trains to its last epoch. Finished runs are on disk
(``training/trials/retraining.py``), so the queue stores nothing between two verifications.
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

MEASURABLE_SHARE = 0.1  # share of a run after which its speed corrects the estimates
MAX_ATTEMPTS = 2  # a run whose worker was lost is started once more, from its checkpoint


@dataclass(frozen=True)
class VerifyJob:
    """One run to train.

    Attributes:
        candidate: candidate to train.
        seconds: estimated training time; 0 if unknown.
    """

    candidate: Candidate
    seconds: float = 0.0


@dataclass(frozen=True)
class _RunProgress:
    """Progress of a run since its first report; it may have resumed from a checkpoint.

    Attributes:
        points: pairs of clock seconds and share of epochs done at that time.
    """

    points: tuple[tuple[float, float], ...]

    @property
    def share(self) -> float:
        """Share of epochs done."""
        return self.points[-1][1]

    def recent(self) -> tuple[float, float]:
        """Return seconds and share of epochs of the later half of the progress so far.

        The first half is left out because the first epochs fill caches. Both values are 0 until enough of the run is
        done.
        """
        first, last = self.points[0][1], self.points[-1][1]
        if last - first < MEASURABLE_SHARE:
            return 0.0, 0.0
        begin = max(point for point in self.points if point[1] <= (first + last) / 2)
        return self.points[-1][0] - begin[0], last - begin[1]


class Queue:
    """The runs of a verification, the most important first.

    Args:
        name: name of the study, for engines that name their work.
        jobs: runs to train.
        workers: number of runs trained at the same time, for the estimate of the time left.
        enough: function called before each run; if it returns true, no further run is started.
        directory: folder of the study, for engines that copy files there.
        clock: monotonic clock in seconds.

    Attributes:
        failures: errors of failed runs, by number.
        done: number of finished runs.
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
        self._running: dict[int, _RunProgress] = {}
        self._workers, self._enough, self._clock = workers, enough, clock
        self.done = 0

    @property
    def total(self) -> int:
        """Number of all runs."""
        return len(self._jobs)

    def ask(self) -> Candidate | None:
        """Return the next run; ``None`` if all are started, or there is no time for more."""
        if not self._waiting or self._enough():
            return None
        job = self._waiting.pop(0)
        number = job.candidate.number
        self._attempts[number] = self._attempts.get(number, 0) + 1
        return job.candidate

    def progress(self, number: int, share: float) -> None:
        """Record that ``share`` of a run's epochs is done."""
        if number in self._reached:  # a late message of a finished run
            return
        before = self._running[number].points if number in self._running else ()
        self._running[number] = _RunProgress((*before, (self._clock(), share)))

    def report(self, candidate: Candidate, report: Report, *, seconds: float = 0.0) -> Decision:
        """Record a report of a run: its costs, or its end."""
        del seconds  # the report has the training time
        if report.rung > 0:
            self._running.pop(candidate.number, None)
            self._reached.add(candidate.number)
            self._took[candidate.number] = (report.seconds, self._jobs[candidate.number].seconds)
        return Decision.CONTINUE

    def close(
        self, candidate: Candidate, error: BaseException | None = None, *, seconds: float = 0.0, epochs: float = 0.0
    ) -> State:
        """Record the end of a run; put it back in the queue if its worker was lost."""
        del seconds, epochs  # no budget is charged with them
        number = candidate.number
        self._running.pop(number, None)
        if (error is None or isinstance(error, EndedEarlyError)) and number in self._reached:  # after its last epoch
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
        """Share of the runs that is done, in [0, 1]; running ones count by their epochs."""
        return (self.done + sum(run.share for run in self._running.values())) / max(self.total, 1)

    def seconds_left(self) -> float | None:
        """Estimate the time left, corrected by the times of the runs so far; ``None`` if unknown.

        It is at least the time of the longest run, because one worker trains it.
        """
        jobs = [job for number, job in self._jobs.items() if number not in (*self._reached, *self.failures)]
        factor = self._slowdown()
        if factor is None and not all(job.seconds for job in jobs):
            return None
        rest = [job.seconds * (1 - self._share_of(job)) * (factor or 1.0) for job in jobs]
        return max(sum(rest) / self._workers, max(rest, default=0.0))

    def _slowdown(self) -> float | None:
        """Return the ratio of measured to estimated time of finished runs and of those with enough progress."""
        took = list(self._took.values())
        for number, run in self._running.items():
            seconds, share = run.recent()
            took.append((seconds, share * self._jobs[number].seconds))
        measured, estimated = (sum(column) for column in zip(*took, strict=True)) if took else (0.0, 0.0)
        return measured / estimated if estimated > 0 else None

    def _share_of(self, job: VerifyJob) -> float:
        run = self._running.get(job.candidate.number)
        return 0.0 if run is None else run.share


class QueueWatch(Watch):
    """Reports the progress of a queue in the format of a search's progress.

    Args:
        callback: function called with a snapshot, at most every ``interval`` seconds and at the end of each run.
        queue: queue to report on.
        words: description of each run, by number.
    """

    def __init__(self, callback: Callable[[Snapshot], None] | None, queue: Queue, words: Mapping[int, str]) -> None:
        super().__init__(callback)
        self._queue, self._words = queue, words

    def progress(self, line: WorkerLine, worker: int = 0) -> None:
        """Record the epoch of a run, which also updates the time left."""
        self._queue.progress(line.number, line.epoch / line.epochs)
        super().progress(line, worker)

    def update(self, stage: str = "verify") -> None:
        """Call the callback with a snapshot of the queue."""
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
        message += "".join(f" · {self._line_text(line)}" for line in lines)
        self._callback(Snapshot(stage, message, queue.share, workers=lines))

    def _line_text(self, line: WorkerLine) -> str:
        return f"{self._words.get(line.number, line.what)}, epoch {line.epoch:.3g}/{line.epochs:g}"
