"""How fast the machine is at this moment: a fixed piece of work, timed beside what is measured.

A shared machine gives a process a few per cent more or less from one ten seconds to the next, and all models alike: two
surveys of the same students, a minute apart, differed by up to 8 % for whole groups. Timing the same small network just
before each model, and dividing by it, takes that away. Latencies are then those of the machine at its *reference
speed*, the one at which it was first seen, which is kept with the remembered costs.
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
    """A machine whose speed never changes."""
    return 1.0


def slowness(device: str = "cpu", clock: Clock = time.perf_counter) -> Callable[[], float]:
    """A function that measures how slow the machine is now, as a multiple of its reference: 1.02 is 2 % slower.

    It uses as many threads as torch has when it is called. A GPU has clocks of its own, so there it is :func:`steady`.

    Args:
        device: of what is measured.
        clock: by which it is timed.
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
    """Seconds of the work at the reference speed; measured and remembered where nobody has done so on this machine."""
    memory, key = CostMemory(cache_folder()), f"speed:{machine()}:{threads}"
    known = memory.get(key, ["seconds"], None)
    if known is None:
        known = {"seconds": statistics.median(_timed(CALIBRATION_SECONDS))}
        memory.put(key, known, LatencyTarget())
        memory.save()
    return known["seconds"]


@functools.cache
def _reference_of_thread() -> float:
    """The same in processor time of one thread."""
    memory, key = CostMemory(cache_folder()), f"thread-speed:{machine()}"
    known = memory.get(key, ["seconds"], None)
    if known is None:
        known = {"seconds": statistics.median(_timed(CALIBRATION_SECONDS, time.thread_time))}
        memory.put(key, known, LatencyTarget())
        memory.save()
    return known["seconds"]


def _timed(seconds: float, clock: Clock = time.perf_counter) -> list[float]:
    """Durations of the work, repeated for as long as asked, five times at least."""
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
    """One inference of a small network: some convolutions, and as much of Python and torch's dispatch around them."""
    with torch.random.fork_rng(devices=[]):
        layers: list[nn.Module] = []
        for channels in (1, *[16] * 5):
            layers += [nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
        network, images = nn.Sequential(*layers).eval(), torch.rand(1, 1, 28, 28)

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run
