"""Asking ahead of need: proposals are made while the driver has nothing else to do, and wait for the next free worker.

All calls of the study stay on the driver's own thread: a proposal and a report read and write the same trials, so a
thread for proposals would have to lock reports out for just as long. Reports always go first; a proposal is begun only
when none is waiting. Every proposal that waits was made without the results that come in meanwhile, so no more are
kept than the measured times call for: none where trials are long against proposals.
"""

from __future__ import annotations

import math
import time
from collections import deque

from autodistill.core.records import Candidate
from autodistill.engines.driving.driven import Driven

_WORTH_IT = 0.05  # workers that end, on average, while one proposal is made; below it a free worker hardly waits
_MEMORY = 0.2  # weight of the newest duration in the running means


def depth(workers: int, ask_seconds: float, trial_seconds: float) -> int:
    """How many proposals to keep ready.

    Args:
        workers: that work at once.
        ask_seconds: of one proposal.
        trial_seconds: that a worker is busy with one.
    """
    ending = workers * ask_seconds / max(trial_seconds, 1e-9)
    return 0 if workers < 2 or ending < _WORTH_IT else min(workers, 1 + math.ceil(2 * ending))


class PrefetchedCandidates:
    """The queue between a study and the workers.

    Args:
        study: asked.
        workers: number of workers.
    """

    def __init__(self, study: Driven, workers: int) -> None:
        self._study, self._workers = study, workers
        self._ready: deque[Candidate] = deque()
        self._ask_seconds = self._trial_seconds = 0.0
        self._begun: dict[int, float] = {}
        self.dry = False

    @property
    def wanted(self) -> bool:
        """Whether an idle driver should ask now."""
        if self.dry or not self._trial_seconds:
            return False
        return len(self._ready) < depth(self._workers, self._ask_seconds, self._trial_seconds)

    def __len__(self) -> int:
        return len(self._ready)

    def take(self) -> Candidate | None:
        """The next candidate for a free worker, asked for on the spot where none is ready; ``None``: there is none."""
        if not self._ready:
            self.refill()
        candidate = self._ready.popleft() if self._ready else None
        if candidate is not None:
            self._begun[candidate.number] = time.monotonic()
        return candidate

    def refill(self) -> None:
        """Ask for one more."""
        if self.dry:
            return
        started = time.monotonic()
        candidate = self._study.ask()
        self._ask_seconds = _mean(self._ask_seconds, time.monotonic() - started)
        if candidate is None:
            self.dry = True  # until a trial ends: one that proves infeasible gives its share of the budget back
        else:
            self._ready.append(candidate)

    def ended(self, candidate: Candidate) -> None:
        """A trial ended: its worker is free, and the study may have something to offer again."""
        began = self._begun.pop(candidate.number, None)
        if began is not None:
            self._trial_seconds = _mean(self._trial_seconds, time.monotonic() - began)
        self.dry = False

    def give_back(self) -> None:
        """File what no worker has begun as interrupted; it goes on when the study is resumed."""
        while self._ready:
            self._study.close(self._ready.popleft())


def _mean(before: float, now: float) -> float:
    return now if not before else (1 - _MEMORY) * before + _MEMORY * now
