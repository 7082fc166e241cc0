"""The latency protocol, one for survey, trials and every later measurement.

Each run is timed by the clock of its target (:mod:`~autodistill.training.costs.clocks`). Warm-up until the time of a
run is stable; then rounds that visit all models in turn, each just after a look at how fast the machine is
(:mod:`~autodistill.training.costs.machine_speed`), by which its times are divided. Other programs, other guests of
a virtual machine and the clock of the processor only ever make a round slower, and all models of that round with it: so
the p50 is the median of the medians of the quieter half of the rounds, and how quiet a round was is judged over all
models in it. A model whose p50 is not certain within 1.5 % is measured for more rounds, and marked as noisy where it is
not within 3 % at the end. Latency is of the deployed form on a random batch; the file on disk is not read.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from autodistill.core.records import LatencyTarget
from autodistill.training.costs.clocks import Clock, clock_of
from autodistill.training.costs.machine_speed import slowness, steady
from autodistill.training.deployed.runtimes import Run, prepare_run, threads

ROUNDS = 11
ROUND_SECONDS = 0.02
MIN_RUNS, MAX_RUNS = 3, 200  # of one model in one round
WARM_SECONDS = 0.5
WARM_RUNS = 5
STABLE = 0.05  # two windows of the warm-up agree within this share
CERTAIN = 0.015  # half width of the p50's interval, as a share of it, above which a measurement is repeated
NOISY = 0.03  # and above which it is marked at the end
REPEATS = 4
LIMIT_SECONDS = 10.0
"""Nothing is repeated once a model has taken so long by the wall clock, nor a group so many times as long: a machine
that is busy for so long will be busy for longer."""


@dataclass(frozen=True)
class Latency:
    """Latency of one model on one target.

    Attributes:
        p50_ms: median of the medians of the quieter rounds, milliseconds per batch.
        p90_ms, p99_ms: quantiles over all runs.
        spread: interquartile range of the quieter rounds' medians over their median.
        noisy: the p50 is not certain within 3 % after every repetition.
        runs: inferences that were timed.
        uncertainty: half width of the p50's interval (of about 95 %), as a share of it.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    spread: float
    noisy: bool
    runs: int
    uncertainty: float = 0.0


def measure_latency(model: nn.Module, target: LatencyTarget, *, image_size: int, channels: int) -> Latency:
    """Latency of one model; see :func:`measure_runs`."""
    clock = clock_of(target)
    with threads(target.threads):
        run = prepare_run(model, target, image_size=image_size, channels=channels)
        return measure_runs([run], clock=clock, speed=slowness(target.device, clock))[0]


def measure_runs(
    runs: Sequence[Run],
    *,
    clock: Clock = time.perf_counter,
    speed: Callable[[], float] | None = None,
    limit: float = LIMIT_SECONDS,
) -> list[Latency]:
    """Latency of several prepared models, measured in interleaved rounds.

    Args:
        runs: one inference each (:func:`autodistill.training.deployed.runtimes.prepare_run`).
        clock: seconds.
        speed: how slow the machine is now, as a multiple of its reference; by default the CPU's, on a real clock.
        limit: seconds of the wall clock for each model after which nothing is repeated.
    """
    if not runs:
        return []
    if speed is None:
        speed = slowness("cpu", clock) if clock in (time.perf_counter, time.thread_time) else steady
    end = time.monotonic() + limit * len(runs)
    counts = [_warm_up(run, clock) for run in runs]
    times: list[list[np.ndarray]] = [[] for _ in runs]
    pending = list(range(len(runs)))
    for _ in range(1 + REPEATS):
        for _ in range(ROUNDS):
            for index in pending:
                now = speed()
                times[index].append(_round(runs[index], counts[index], clock) / now)
        found = [summarize(rounds, quiet) for rounds, quiet in zip(times, quieter(times), strict=True)]
        pending = [index for index in pending if found[index].uncertainty > CERTAIN]
        if not pending or time.monotonic() > end:
            break
    return found


def quieter(times: Sequence[Sequence[np.ndarray]]) -> list[list[int]]:
    """For each model, the half of its rounds in which the machine was quietest, judged over all models of a round.

    Args:
        times: per model, the seconds of every run, one array per round; models that settled have fewer rounds.
    """
    slowness = []  # per model and round, how much slower than the model's best round
    for rounds in times:
        medians = np.array([np.median(one) for one in rounds])
        slowness.append(medians / max(float(medians.min()), 1e-12))
    longest = max((len(one) for one in slowness), default=0)
    machine = [float(np.median([one[i] for one in slowness if i < len(one)])) for i in range(longest)]
    order = [sorted(range(len(one)), key=lambda i: (machine[i], i)) for one in slowness]
    return [sorted(rounds[: -(-len(rounds) // 2)]) for rounds in order]


def summarize(rounds: Sequence[np.ndarray], quiet: Sequence[int] | None = None) -> Latency:
    """Latency from the seconds of every run, one array per round.

    Args:
        rounds: all rounds.
        quiet: those that the p50 is taken from; all by default.
    """
    medians = np.array([np.median(rounds[i]) for i in (range(len(rounds)) if quiet is None else quiet)]) * 1e3
    middle = float(np.median(medians))
    low, high = np.quantile(medians, [0.25, 0.75])
    spread = float(high - low) / middle if middle > 0 else 0.0
    uncertainty = 1.57 * spread / math.sqrt(len(medians))  # the notch of McGill, Tukey and Larsen (1978)
    everything = np.concatenate(rounds) * 1e3
    p90, p99 = (float(np.quantile(everything, q)) for q in (0.9, 0.99))
    return Latency(middle, p90, p99, spread, uncertainty > NOISY, len(everything), uncertainty)


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
