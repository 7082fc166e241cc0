"""Closed-form evaluations that crash, hang or break their device; light, for every crash starts another process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from autodistill.core.records import Candidate, Evaluate, Report, WorkerContext

LEVELS = (1, 3, 9)


def evaluate(candidate: Candidate) -> Iterator[Report]:
    """Three rungs that cost nothing; the wider and the longer, the better."""
    width = candidate.student["width"]
    known = {"params": 100.0 * width, "latency_ms": width / 10}
    yield Report(0, known)
    for rung, epochs in enumerate(LEVELS, 1):
        if rung > candidate.start_rung:
            accuracy = 1 - width**-0.5 - 0.3 / epochs * candidate.train["lr"]
            yield Report(rung, {"accuracy": accuracy, **known}, epochs, 0.01 * rung)


def segfaults_at_32(candidate: Candidate) -> Iterator[Report]:
    """The width 32 kills its process after the known costs; its attempts are written into the file ``TOY_LOG``."""
    reports = evaluate(candidate)
    yield next(reports)
    if candidate.student["width"] == 32:
        if "TOY_LOG" in os.environ:
            with open(os.environ["TOY_LOG"], "a", encoding="utf-8") as log:
                log.write(f"{candidate.number}\n")
        os.kill(os.getpid(), signal.SIGSEGV)
    yield from reports


def always_segfaults(candidate: Candidate) -> Iterator[Report]:
    """Every student kills its process."""
    yield next(evaluate(candidate))
    os.kill(os.getpid(), signal.SIGSEGV)


def quits_at_first(candidate: Candidate) -> Iterator[Report]:
    """The first trial calls ``sys.exit``."""
    if candidate.number == 0:
        raise SystemExit(3)
    yield from evaluate(candidate)


_broken_in: list[int] = []  # processes whose device is broken


def breaks_its_device(candidate: Candidate) -> Iterator[Report]:
    """The third trial breaks the device of its process, on which nothing can be done from then on."""
    if candidate.number == 2:
        _broken_in.append(os.getpid())
    if os.getpid() in _broken_in:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    yield from evaluate(candidate)


def stands_still_at_32(context: WorkerContext) -> Evaluate:
    """Makes trainings that tell of progress now and then; that of the width 32 stands still at its second rung."""

    def train(candidate: Candidate) -> Iterator[Report]:
        for report in evaluate(candidate):
            for step in range(4 if report.rung else 0):
                time.sleep(0.01)
                context.progress(report.epochs - 1 + step / 4, LEVELS[-1], {})
                if (candidate.student["width"], report.rung, step) == (32, 2, 2):
                    time.sleep(600)
            yield report

    return train
