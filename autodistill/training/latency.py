"""The latency protocol, one for survey, trials and every later measurement.

Warm-up until the time of a run is stable; then rounds that visit all models in turn, so that a slow minute of the
machine hits all alike; the p50 is the median of the rounds' medians. A measurement whose rounds disagree is repeated,
and marked as noisy when they still do. Latency is of the deployed form on a random batch; the file on disk is not read.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from autodistill.records import LatencyTarget
from autodistill.training.runtimes import Run, prepare, threads

ROUNDS = 7
ROUND_SECONDS = 0.02
MIN_RUNS, MAX_RUNS = 5, 200  # of one model in one round
WARM_SECONDS = 0.5
WARM_RUNS = 5
STABLE = 0.05  # two windows of the warm-up agree within this share
NOISY = 0.10  # spread above which a measurement is repeated, then marked
REPEATS = 2


@dataclass(frozen=True)
class Latency:
    """Latency of one model on one target.

    Attributes:
        p50_ms: median of the rounds' medians, milliseconds per batch.
        p90_ms, p99_ms: quantiles over all runs.
        spread: interquartile range of the rounds' medians over their median.
        noisy: the spread stayed above 10 % after every repetition.
        runs: inferences that were timed.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    spread: float
    noisy: bool
    runs: int


def measure(model: nn.Module, target: LatencyTarget, *, image_size: int, channels: int) -> Latency:
    """Latency of one model; see :func:`measure_runs`."""
    with threads(target.threads):
        return measure_runs([prepare(model, target, image_size=image_size, channels=channels)])[0]


def measure_runs(runs: Sequence[Run], *, clock: Callable[[], float] = time.perf_counter) -> list[Latency]:
    """Latency of several prepared models, measured in interleaved rounds.

    Args:
        runs: one inference each (:func:`autodistill.training.runtimes.prepare`).
        clock: seconds.
    """
    counts = [_warm_up(run, clock) for run in runs]
    times: list[list[np.ndarray]] = [[] for _ in runs]
    pending = list(range(len(runs)))
    for _ in range(1 + REPEATS):
        for _ in range(ROUNDS):
            for index in pending:
                times[index].append(_round(runs[index], counts[index], clock))
        pending = [index for index in pending if summarize(times[index]).noisy]
        if not pending:
            break
    return [summarize(rounds) for rounds in times]


def summarize(rounds: Sequence[np.ndarray]) -> Latency:
    """Latency from the seconds of every run, one array per round."""
    medians = np.array([np.median(one) for one in rounds]) * 1e3
    middle = float(np.median(medians))
    low, high = np.quantile(medians, [0.25, 0.75])
    spread = float(high - low) / middle if middle > 0 else 0.0
    everything = np.concatenate(rounds) * 1e3
    p90, p99 = (float(np.quantile(everything, q)) for q in (0.9, 0.99))
    return Latency(middle, p90, p99, spread, spread > NOISY, len(everything))


def _warm_up(run: Run, clock: Callable[[], float]) -> int:
    """Run until two windows agree; returns how many runs fill a round."""
    last = math.inf
    started = clock()
    while True:
        window = _round(run, WARM_RUNS, clock)
        now = float(np.median(window))
        stable = abs(now - last) <= STABLE * now
        last = now
        if stable or clock() - started > WARM_SECONDS:
            break
    return int(min(MAX_RUNS, max(MIN_RUNS, ROUND_SECONDS / max(last, 1e-9))))


def _round(run: Run, count: int, clock: Callable[[], float]) -> np.ndarray:
    collecting = gc.isenabled()
    gc.disable()  # a collection inside a run would be billed to the model
    try:
        seconds = np.empty(count)
        for i in range(count):
            start = clock()
            run()
            seconds[i] = clock() - start
        return seconds
    finally:
        if collecting:
            gc.enable()
