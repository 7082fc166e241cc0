"""The latency protocol of the survey, of trials and of every later measurement.

1. Runs are timed by the clock of the target (:mod:`~autodistill.training.costs.clocks`).
2. Each model is warmed up until the time of a run is stable.
3. Rounds visit all models in turn. Just before a model is timed, the speed of the machine is measured
   (:mod:`~autodistill.training.costs.machine_speed`), and the model's times are divided by the slowness.
4. The p50 is the median of the medians of the quieter half of the rounds. Other programs, other guests of a virtual
   machine and a lower processor frequency only make a round slower, and they affect all models of that round.
   Therefore, the quietness of a round is computed over all models in it.
5. A model whose p50 has an uncertainty above 1.5 % is measured for more rounds. If the uncertainty is above 3 % at the
   end, the model is marked as noisy.

Latency is that of the deployed form on a random batch; files on disk are not read.
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
STABLE = 0.05  # the warm-up ends when two consecutive windows differ by at most this share
CERTAIN = 0.015  # uncertainty (see ``Latency``) above which a measurement is repeated
NOISY = 0.03  # uncertainty above which a latency is marked as noisy at the end
REPEATS = 4
LIMIT_SECONDS = 10.0
"""Wall-clock seconds per model after which nothing is repeated; a group of n models has n times as long.

A machine that was busy for so long is likely to stay busy."""


@dataclass(frozen=True)
class Latency:
    """Latency of one model on one target.

    Attributes:
        p50_ms: median of the medians of the quieter rounds, milliseconds per batch.
        p90_ms, p99_ms: quantiles over all runs, milliseconds per batch.
        spread: interquartile range of the quieter rounds' medians, divided by their median.
        noisy: whether the uncertainty is above 3 % after all repetitions.
        runs: number of timed inferences.
        uncertainty: half width of the p50's confidence interval (about 95 %), divided by the p50.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    spread: float
    noisy: bool
    runs: int
    uncertainty: float = 0.0


def measure_latency(model: nn.Module, target: LatencyTarget, *, image_size: int, channels: int) -> Latency:
    """Measure the latency of one model; see :func:`measure_runs`."""
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
    """Measure the latency of several prepared models in interleaved rounds.

    Args:
        runs: one inference per model (:func:`autodistill.training.deployed.runtimes.prepare_run`).
        clock: returns seconds.
        speed: returns the current slowness of the machine, as a multiple of its reference; by default that of the CPU
            if ``clock`` is a real clock, else 1.
        limit: wall-clock seconds per model after which nothing is repeated.
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
    """Return for each model the half of its rounds in which the machine was quietest, over all models of a round.

    Args:
        times: per model, the seconds of every run, one array per round; models that were certain early have fewer
            rounds.

    Returns:
        Per model, the sorted indices of the quieter rounds.
    """
    slowness = []  # per model and round, the round's median as a multiple of the model's best round
    for rounds in times:
        medians = np.array([np.median(one) for one in rounds])
        slowness.append(medians / max(float(medians.min()), 1e-12))
    longest = max((len(one) for one in slowness), default=0)
    machine = [float(np.median([one[i] for one in slowness if i < len(one)])) for i in range(longest)]
    order = [sorted(range(len(one)), key=lambda i: (machine[i], i)) for one in slowness]
    return [sorted(rounds[: -(-len(rounds) // 2)]) for rounds in order]


def summarize(rounds: Sequence[np.ndarray], quiet: Sequence[int] | None = None) -> Latency:
    """Compute a latency from the times of all runs.

    Args:
        rounds: seconds of every run, one array per round.
        quiet: indices of the rounds that the p50 is computed from; all by default.
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
    """Run until two consecutive windows agree or the time is up; return the number of runs that fill a round."""
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
    """Time ``count`` runs; return the seconds of each, ``(count,)``."""
    collecting = gc.isenabled()
    gc.disable()  # a garbage collection during a run would add to the model's time
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
