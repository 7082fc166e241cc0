"""Prefetching of candidates: proposals are made while the driver is idle, and wait for the next free worker.

All calls of the study stay on the driver's thread. A proposal and a report read and write the same trials, so a
separate thread for proposals would block reports for just as long. Reports go first: a proposal begins only if no
report is waiting. A waiting proposal does not use results that arrive later, so no more are kept than the measured
times require: none if trials take much longer than proposals.
"""

from __future__ import annotations

import math
import time
from collections import deque

from autodistill.core.records import Candidate
from autodistill.engines.driving.driven import Driven

_WORTH_IT = 0.05  # mean number of trials that end during one proposal; below it free workers hardly wait
_MEMORY = 0.2  # weight of the newest duration in the running means


def depth(workers: int, ask_seconds: float, trial_seconds: float) -> int:
    """Return how many proposals to keep ready.

    Args:
        workers: Number of workers.
        ask_seconds: Mean seconds of one proposal.
        trial_seconds: Mean seconds of one trial.
    """
    ending = workers * ask_seconds / max(trial_seconds, 1e-9)
    return 0 if workers < 2 or ending < _WORTH_IT else min(workers, 1 + math.ceil(2 * ending))


class PrefetchedCandidates:
    """Queue of candidates between a study and its workers.

    Args:
        study: Source of the candidates.
        workers: Number of workers.

    Attributes:
        dry: Whether the study had no candidate when last asked, and no trial has ended since.
    """

    def __init__(self, study: Driven, workers: int) -> None:
        self._study, self._workers = study, workers
        self._ready: deque[Candidate] = deque()
        self._ask_seconds = self._trial_seconds = 0.0
        self._begun: dict[int, float] = {}
        self.dry = False

    @property
    def wanted(self) -> bool:
        """Return whether an idle driver should prefetch a candidate now."""
        if self.dry or not self._trial_seconds:
            return False
        return len(self._ready) < depth(self._workers, self._ask_seconds, self._trial_seconds)

    def __len__(self) -> int:
        return len(self._ready)

    def take(self) -> Candidate | None:
        """Return the next candidate for a free worker, from the queue or the study; ``None`` if there is none."""
        if not self._ready:
            self.refill()
        candidate = self._ready.popleft() if self._ready else None
        if candidate is not None:
            self._begun[candidate.number] = time.monotonic()
        return candidate

    def refill(self) -> None:
        """Get one more candidate from the study, if it has any."""
        if self.dry:
            return
        started = time.monotonic()
        candidate = self._study.ask()
        self._ask_seconds = _mean(self._ask_seconds, time.monotonic() - started)
        if candidate is None:
            self.dry = True  # until a trial ends: an infeasible trial returns its share of the budget
        else:
            self._ready.append(candidate)

    def ended(self, candidate: Candidate) -> None:
        """Record that a trial ended: its worker is free, and the study may have a candidate again."""
        began = self._begun.pop(candidate.number, None)
        if began is not None:
            self._trial_seconds = _mean(self._trial_seconds, time.monotonic() - began)
        self.dry = False

    def give_back(self) -> None:
        """Close candidates that no worker has begun as interrupted; a resumed study continues them."""
        while self._ready:
            self._study.close(self._ready.popleft())


def _mean(before: float, now: float) -> float:
    return now if not before else (1 - _MEMORY) * before + _MEMORY * now
