"""Closed-form studies: accuracy and costs are formulas, so that tests know the answer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from autodistill.core.errors import DivergedError, InfeasibleError, InterruptedTrialError
from autodistill.core.records import Candidate, Constraint, Evaluate, Report, WorkerContext
from autodistill.search.objectives.objectives import resolve
from autodistill.search.rungs.levels import Rungs
from autodistill.search.space.space import Space
from autodistill.search.storage import study_folder as store
from autodistill.search.study.study import Study

SPACE: dict[str, Any] = {
    "student": {"width": [4, 8, 16, 32, 64, 128]},
    "train": {"lr": {"low": 0.1, "high": 1.0}},
}
LEVELS = (1, 3, 9)


def costs(student: Any) -> dict[str, float]:
    """Parameters and latency grow with the width."""
    return {"params": student["width"] * 100.0, "latency_ms": student["width"] / 10}


def accuracy(candidate: Candidate, epochs: float) -> float:
    """Grows with width and epochs, falls with the learning rate."""
    return 1 - candidate.student["width"] ** -0.5 - 0.3 / epochs * candidate.train["lr"]


def evaluate(candidate: Candidate) -> Iterator[Report]:
    """A trial of three rungs that costs nothing."""
    known = costs(candidate.student)
    yield Report(0, known)
    for rung, epochs in enumerate(LEVELS, 1):
        if rung > candidate.start_rung:
            yield Report(rung, {"accuracy": accuracy(candidate, epochs), **known}, epochs, 0.01 * rung)


def evaluate_or_die(candidate: Candidate) -> Iterator[Report]:
    """The width 32 kills its worker process outright."""
    if candidate.student["width"] == 32:
        os._exit(7)
    yield from evaluate(candidate)


def evaluate_or_fail(candidate: Candidate) -> Iterator[Report]:
    """Every kind of bad end, by width."""
    width = candidate.student["width"]
    if width == 4:
        raise InfeasibleError("cannot be built at this size")
    yield Report(0, costs(candidate.student))
    if width == 8:
        yield Report(1, {"accuracy": float("nan")}, 1, 0.01)
    if width == 16:
        raise MemoryError
    if width == 32:
        raise RuntimeError("a bug in the user's code")
    yield from list(evaluate(candidate))[1:]


def evaluate_badly(candidate: Candidate) -> Iterator[Report]:
    """What the user's own code may do that looks like something else, by width."""
    yield Report(0, costs(candidate.student))
    if candidate.student["width"] == 8:
        raise EOFError("Ran out of input")
    if candidate.student["width"] == 16:
        raise BrokenPipeError("my subprocess ended")
    if candidate.student["width"] == 32:
        yield {"rung": 1, "accuracy": 0.5}  # type: ignore[misc]
    if candidate.student["width"] == 64:
        yield Report(1, 0.5)  # type: ignore[arg-type]
    yield from list(evaluate(candidate))[1:]


def evaluate_halfway(candidate: Candidate) -> Iterator[Report]:
    """Ends by itself after a rung that depends on the width, and never at the top."""
    yield from list(evaluate(candidate))[: 1 + candidate.student["width"] % 3]


def never_feasible(candidate: Candidate) -> Iterator[Report]:
    """No student can be built."""
    raise InfeasibleError("no such student")


def diverges(candidate: Candidate) -> Iterator[Report]:
    """Passes rung 1, works for 50 ms more, and diverges, each time in other words."""
    reports = evaluate(candidate)
    yield next(reports)
    yield next(reports)
    time.sleep(0.05)
    raise DivergedError(f"the loss is not finite (lr {candidate.number / 1000})")


def diverges_at_once(candidate: Candidate) -> Iterator[Report]:
    """Diverges before its first rung, each time in other words."""
    raise DivergedError(f"the loss is not finite (lr {candidate.number / 1000})")


def evaluate_slowly(candidate: Candidate) -> Iterator[Report]:
    """As :func:`evaluate`, 50 ms a rung."""
    for report in evaluate(candidate):
        time.sleep(0.05)
        yield report


def evaluate_untimed(candidate: Candidate) -> Iterator[Report]:
    """As :func:`evaluate`, 20 ms a rung and before the first one, and silent about it."""
    for report in evaluate(candidate):
        time.sleep(0.02)
        yield replace(report, seconds=0.0)


def patient(context: WorkerContext) -> Evaluate:
    """Makes evaluations that take half a minute and ask all the time whether they should stop."""

    def evaluate(candidate: Candidate) -> Iterator[Report]:
        yield Report(0, costs(candidate.student))
        for _ in range(3000):
            time.sleep(0.01)
            if context.should_stop():
                raise InterruptedTrialError("asked to stop")
        yield Report(1, {"accuracy": 0.5}, 1.0)

    return evaluate


def press_ctrl_c() -> None:
    """Interrupt the driver, from itself or from one of its workers."""
    driver = multiprocessing.parent_process()
    os.kill(os.getpid() if driver is None or driver.pid is None else driver.pid, signal.SIGINT)


def evaluate_and_interrupt(candidate: Candidate) -> Iterator[Report]:
    """As :func:`evaluate`, and deaf to the wish to stop; Ctrl-C is pressed during the first rung of the first trial."""
    for report in evaluate(candidate):
        if candidate.number == 0 and report.rung == 1:
            press_ctrl_c()
        yield report


def evaluate_and_hang(candidate: Candidate) -> Iterator[Report]:
    """The first trial presses Ctrl-C twice, and then no trial answers any more."""
    yield Report(0, costs(candidate.student))
    for _ in range(2 if candidate.number == 0 else 0):
        press_ctrl_c()
        time.sleep(0.5)
    time.sleep(600)


def evaluate_or_hang(candidate: Candidate) -> Iterator[Report]:
    """As :func:`evaluate_slowly`, but the first trial hangs after its first rung."""
    reports = evaluate_slowly(candidate)
    yield next(reports)
    yield next(reports)
    if candidate.number == 0:
        time.sleep(600)
    yield from reports


def make_study(
    directory: Path | None = None,
    *,
    space: dict[str, Any] | None = None,
    constraints: tuple[Constraint, ...] = (),
    sampler: str | BaseSampler = "random",
    rungs: Rungs | None = None,
    seed: int = 0,
    storage: BaseStorage | None = None,
    name: str = "toy",
) -> Study:
    """A study of the toy space, in memory, in a folder, or in a storage."""
    if directory is not None:
        store.make_folder(directory)
    return Study(
        store.open_storage(directory) if storage is None else storage,
        name,
        space=Space.parse(space or SPACE),
        objectives=resolve(["accuracy", "params", "latency_ms"]),
        constraints=constraints,
        sampler=sampler,
        rungs=rungs or Rungs(LEVELS),
        seed=seed,
        directory=directory,
    )
