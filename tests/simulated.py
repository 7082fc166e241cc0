"""Searches on a simulated clock: workers, students of known speed, a teacher that is asked once for each view."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autodistill.core.budget import Budget
from autodistill.core.errors import InterruptedTrialError
from autodistill.core.records import Candidate, Decision, Report, State
from autodistill.search.objectives.objectives import resolve
from autodistill.search.rungs.levels import Rungs
from autodistill.search.space.space import Space
from autodistill.search.storage import study_folder as store
from autodistill.search.study.study import Study

SPACE: dict[str, Any] = {
    "student": {"family": ["quick", "slow"], "width": {"low": 4, "high": 64, "log": True}},
    "train": {"lr": {"low": 0.1, "high": 1.0}, "augment": ["none", "crop", "flip_crop"]},
}
POOL = 40


@dataclass(frozen=True)
class World:
    """What a search meets.

    Attributes:
        epoch: seconds of one epoch of the student in the middle of the space.
        cold: seconds of teacher for one view of all images that no trial has asked about.
        survey: seconds before the first trial.
        start: seconds that a worker's first trial takes before it trains.
        drift: largest factor by which the machine is slower or faster than usual, for half a minute to two at a time.
        reach: how many times as dear as the middle the dearest student is.
        told: whether the reports tell what the teacher took.
    """

    epoch: float
    cold: float = 0.0
    survey: float = 0.0
    start: float = 0.0
    drift: float = 1.0
    reach: float = 4.0
    told: bool = True

    def rate(self, student: Any) -> float:
        """Seconds of one epoch: family and width count, of which the costs know the width only."""
        middle = math.sqrt(4 * 64)
        power = math.log(self.reach) / math.log(64 / middle)
        return self.epoch * (student["width"] / middle) ** power * (0.8 if student["family"] == "quick" else 1.25)


@dataclass(order=True)
class _Event:
    at: float
    order: int
    number: int = field(compare=False)
    report: Report | None = field(compare=False)


@dataclass
class _Running:
    candidate: Candidate
    reports: Iterator[tuple[float, Report]]
    began: float = 0.0


def costs(student: Any) -> dict[str, float]:
    """Known before training; they do not tell the families' speed."""
    return {"params": 1000.0 * student["width"] ** 2, "latency_ms": 0.05 * student["width"]}


def accuracy(candidate: Candidate, epochs: float) -> float:
    """Grows with width and epochs; the best learning rate is in the middle."""
    final = 0.92 - 0.6 * candidate.student["width"] ** -0.5 - 0.1 * math.log10(candidate.train["lr"] / 0.3) ** 2
    noise = 0.01 * float(np.random.default_rng(candidate.seed).standard_normal())
    return min(1.0, max(0.0, final * (1 - 0.8 * math.exp(-epochs / 6)) + noise))


class Simulation:
    """Drives a study as an engine of several workers does, on a clock of its own.

    Args:
        study: what is driven.
        world: what it meets.
        workers: how many.
        seed: of the machine's drift.
    """

    def __init__(self, study: Study, world: World, workers: int, seed: int = 0) -> None:
        self.study, self.world, self.workers = study, world, workers
        self.now = 0.0
        self._rng = np.random.default_rng(seed)
        self._drifts: list[tuple[float, float]] = [(0.0, 1.0)]
        self._views: dict[str, int] = {}
        self._fresh = workers
        self._trained: dict[int, tuple[float, float, float]] = {}

    def run(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        """Search for so many seconds."""
        monkeypatch.setattr("autodistill.search.study.spending.time", SimpleNamespace(monotonic=lambda: self.now))
        with self.study.running(Budget(seconds=seconds)):
            self.now += self.world.survey
            self._drive(self.now - self.world.survey + seconds)

    def _drive(self, deadline: float) -> None:
        running: dict[int, _Running] = {}
        events: list[_Event] = []
        count = 0

        def follow(one: _Running) -> None:
            nonlocal count
            count += 1
            took, report = next(one.reports)
            one.began = self.now
            heapq.heappush(events, _Event(self.now + took, count, one.candidate.number, report))

        while True:
            while len(running) < self.workers and self.now < deadline and (found := self.study.ask()) is not None:
                running[found.number] = _Running(found, self._reports(found))
                follow(running[found.number])
            if not running:
                return
            event = heapq.heappop(events)
            one = running[event.number]
            if event.at > deadline:
                self.now = deadline
                error = InterruptedTrialError("time is up")
                self.study.close(one.candidate, error, seconds=deadline - one.began)
                del running[event.number]
                continue
            self.now = event.at
            assert event.report is not None
            if self.study.report(one.candidate, event.report) is Decision.STOP:
                self.study.close(one.candidate)
                del running[event.number]
            else:
                follow(one)

    def _reports(self, candidate: Candidate) -> Iterator[tuple[float, Report]]:
        """Seconds until each report, and the report."""
        known = costs(candidate.student)
        done, worked, asked = self._trained.get(candidate.number, (0.0, 0.0, 0.0))
        start = self.world.start if self._fresh > 0 else 0.0
        self._fresh -= 1
        if candidate.start_rung == 0:
            worked = start
            yield start, Report(0, known, seconds=worked)
            start = 0.0
        for rung, epochs in enumerate(self.study.rungs.levels, 1):
            if rung <= candidate.start_rung:
                continue
            views, policy = 0, candidate.train["augment"]
            wanted = 1 if policy == "none" else epochs
            views = max(0, wanted - max(self._views.get(policy, 0), 0 if policy == "none" else int(done)))
            self._views[policy] = max(wanted, self._views.get(policy, 0))
            factor = self._factor()
            teacher = views * self.world.cold * factor
            took = start + (epochs - done) * self.world.rate(candidate.student) * factor + teacher
            start = 0.0
            done, worked, asked = epochs, worked + took, asked + teacher
            self._trained[candidate.number] = done, worked, asked
            more = {"teacher_seconds": asked} if self.world.told and self.world.cold else {}
            values = {"accuracy": accuracy(candidate, epochs), **known}
            yield took, Report(rung, values, epochs, worked, **more)

    def _factor(self) -> float:
        if self.world.drift == 1.0:
            return 1.0
        while self._drifts[-1][0] <= self.now:
            until = self._drifts[-1][0] + float(self._rng.uniform(30, 120))
            self._drifts.append((until, float(np.exp(self._rng.uniform(-1, 1) * math.log(self.world.drift)))))
        return next(factor for until, factor in self._drifts if until > self.now)


def make_study(rungs: Rungs, *, sampler: str = "front", seed: int = 0) -> Study:
    """A study of the simulated space, with a surveyed pool."""
    space = Space.parse(SPACE)
    study = Study(
        store.open_storage(None),
        "simulated",
        space=space,
        objectives=resolve(["accuracy", "params", "latency_ms"]),
        sampler=sampler,
        rungs=rungs,
        seed=seed,
    )
    rng = np.random.default_rng(seed)
    pool = [space.nest(space.sample(rng))["student"] for _ in range(POOL)]
    study.set_known_costs([(student, costs(student)) for student in pool], costs)
    return study


@dataclass(frozen=True)
class Outcome:
    """How a simulated search ended.

    Attributes:
        complete: number of COMPLETE trials.
        unspent: share of the workers' time after the survey in which nothing was trained.
        lost: share of it that went into trials that were training when the time was up.
        waste: see ``search/waste.py``.
        ended: why, in words.
    """

    complete: int
    trials: int
    front: int
    best: float
    unspent: float
    lost: float
    waste: float
    ended: str


def search(
    monkeypatch: pytest.MonkeyPatch,
    world: World,
    *,
    budget: float,
    workers: int,
    rungs: Rungs,
    seed: int = 0,
    sampler: str = "front",
    after: Callable[[Study], None] = lambda study: None,
) -> Outcome:
    """One search, from its start to its end."""
    study = make_study(rungs, sampler=sampler, seed=seed)
    Simulation(study, world, workers, seed).run(monkeypatch, budget)
    after(study)
    trials = study.trials()
    room = workers * (budget - world.survey)
    lost = sum(t.seconds for t in trials if t.reason in ("BUDGET", "INTERRUPTED"))
    done = [t for t in trials if t.state is State.COMPLETE]
    return Outcome(
        complete=len(done),
        trials=sum(t.epochs > 0 for t in trials),
        front=len(study.front()),
        best=max((t.values["accuracy"] for t in done), default=0.0),
        unspent=1 - study.spent.device_seconds / room,
        lost=lost / room,
        waste=study.waste().share,
        ended=study.ended,
    )
