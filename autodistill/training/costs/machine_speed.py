"""Current speed of the machine, measured by timing a fixed small network.

The speed of a shared machine varies by a few per cent within ten seconds, for all models alike: two surveys of the same
students, a minute apart, differed by up to 8 % for whole groups. Timing the same small network just before each model,
and dividing by its time, removes this variation. Latencies then refer to the *reference speed* of the machine. It is
the speed at the first measurement on this machine, and is stored with the known costs.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from autodistill.core.records import LatencyTarget
from autodistill.training.costs.clocks import Clock
from autodistill.training.costs.cost_memory import CostMemory, cache_folder, machine

LOOK_SECONDS = 0.006
CALIBRATION_SECONDS = 0.5


def steady() -> float:
    """Return 1: the slowness of a machine whose speed is taken as constant."""
    return 1.0


def slowness(device: str = "cpu", clock: Clock = time.perf_counter) -> Callable[[], float]:
    """Return a function that measures the current slowness of the machine: 1.02 is 2 % slower than the reference.

    The function uses as many threads as torch has when it is called. For a GPU, whose speed does not depend on the CPU,
    it is :func:`steady`.

    Args:
        device: torch device string of the measurement.
        clock: clock of the measurement.
    """
    if device != "cpu":
        return steady
    return _slowness_now if clock is time.perf_counter else _slowness_of_thread


def _slowness_now() -> float:
    return statistics.median(_timed(LOOK_SECONDS)) / _reference(torch.get_num_threads())


def _slowness_of_thread() -> float:
    return statistics.median(_timed(LOOK_SECONDS, time.thread_time)) / _reference_of_thread()


@functools.cache
def _reference(threads: int) -> float:
    """Return the wall-clock seconds of the work at the reference speed; measure and store them at the first call."""
    memory, key = CostMemory(cache_folder()), f"speed:{machine()}:{threads}"
    known = memory.get(key, ["seconds"], None)
    if known is None:
        known = {"seconds": statistics.median(_timed(CALIBRATION_SECONDS))}
        memory.put(key, known, LatencyTarget())
        memory.save()
    return known["seconds"]


@functools.cache
def _reference_of_thread() -> float:
    """Return the same as ``_reference``, in processor time of one thread."""
    memory, key = CostMemory(cache_folder()), f"thread-speed:{machine()}"
    known = memory.get(key, ["seconds"], None)
    if known is None:
        known = {"seconds": statistics.median(_timed(CALIBRATION_SECONDS, time.thread_time))}
        memory.put(key, known, LatencyTarget())
        memory.save()
    return known["seconds"]


def _timed(seconds: float, clock: Clock = time.perf_counter) -> list[float]:
    """Return the durations of the work, repeated for ``seconds`` but at least five times."""
    work = _work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = clock()
        work()
        times.append(clock() - start)
    return times


@functools.cache
def _work() -> Callable[[], None]:
    """Return one inference of a small network, a mix of convolutions and overhead of Python and torch's dispatch."""
    with torch.random.fork_rng(devices=[]):
        layers: list[nn.Module] = []
        for channels in (1, *[16] * 5):
            layers += [nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
        network, images = nn.Sequential(*layers).eval(), torch.rand(1, 1, 28, 28)

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run
