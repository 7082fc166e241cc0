"""The queue of trainings that an engine drives as it drives a study: it answers ``ask``, ``report`` and ``close``.

Nothing is proposed, compared or stopped; every run goes to its last epoch. Finished runs are on disk
(``training/retraining.py``), so the queue remembers nothing between two verifications.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autodistill.engines.watch import Snapshot, Watch, WorkerLine
from autodistill.errors import EndedEarlyError, InterruptedTrialError
from autodistill.records import Candidate, Decision, Report, State
from autodistill.search.budget import format_seconds

if TYPE_CHECKING:
    from autodistill.search.study import Study

MAX_ATTEMPTS = 2  # a run whose worker died is begun once more: it goes on from its checkpoint


@dataclass(frozen=True)
class Job:
    """One run that is still to be trained.

    Attributes:
        candidate: what is trained.
        seconds: what it is thought to take; 0 when unknown.
    """

    candidate: Candidate
    seconds: float = 0.0


class Queue:
    """The runs of a verification, the most important first.

    Args:
        name: the study's, for engines that give their work a name.
        jobs: what is still to be trained.
        workers: how many are trained at once, for the time that is left.
        enough: asked before each run; true ends the queue.
        directory: the study's folder, for engines that bring files there.
    """

    def __init__(
        self,
        name: str,
        jobs: Sequence[Job],
        *,
        workers: int = 1,
        enough: Callable[[], bool] = lambda: False,
        directory: Path | None = None,
    ) -> None:
        self.name, self.directory = name, directory
        self.failures: dict[int, str] = {}
        self._waiting = list(jobs)
        self._jobs = {job.candidate.number: job for job in jobs}
        self._attempts: dict[int, int] = {}
        self._reached: set[int] = set()
        self._took: dict[int, tuple[float, float]] = {}
        self._workers, self._enough = workers, enough
        self._started = time.monotonic()
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

    def report(self, candidate: Candidate, report: Report) -> Decision:
        """A run showed its costs, or is finished."""
        if report.rung > 0:
            self._reached.add(candidate.number)
            self._took[candidate.number] = (report.seconds, self._jobs[candidate.number].seconds)
        return Decision.CONTINUE

    def close(self, candidate: Candidate, error: BaseException | None = None) -> State:
        """A run ended; one whose worker died is tried again."""
        number = candidate.number
        if (error is None or isinstance(error, EndedEarlyError)) and number in self._reached:  # nobody stops a run
            self.done += 1
            return State.COMPLETE
        if error is None or isinstance(error, InterruptedTrialError):
            return State.PARTIAL
        if getattr(error, "reason", "") == "WORKER_LOST" and self._attempts[number] < MAX_ATTEMPTS:
            self._waiting.insert(0, self._jobs[number])
            return State.PARTIAL
        self.failures[number] = str(error) or type(error).__name__
        return State.FAIL

    def seconds_left(self) -> float | None:
        """About how long the rest takes, corrected by how long the finished runs took; ``None`` when unknown."""
        rest = [job.seconds for number, job in self._jobs.items() if number not in (*self._reached, *self.failures)]
        real, thought = (sum(column) for column in zip(*self._took.values(), strict=True)) if self._took else (0, 0)
        if thought > 0:
            return sum(rest) * real / thought / self._workers
        return sum(rest) / self._workers if all(rest) else None


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

    def update(self, study: Study | None = None, stage: str = "verify") -> None:
        """Pass a snapshot of the queue on; there is no study behind it."""
        del study
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
        self._callback(Snapshot(stage, message, queue.done / max(queue.total, 1), workers=lines))

    def _said(self, line: WorkerLine) -> str:
        return f"{self._words.get(line.number, line.what)}, epoch {line.epoch:.3g}/{line.epochs:g}"
