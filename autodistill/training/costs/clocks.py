"""The clock of a measurement: the processor time of the thread that computes, where that is all there is to measure.

An inference on one thread of the CPU waits for nothing, so that its duration on a quiet machine is the processor time
that it takes. On a busy one, the time for which other programs are on its core is not counted: two programs that
compute all the time beside it on two cores make the wall clock's figure a third to a half too large, and no repetition
mends that. Caches and memory that others use are still felt. GPUs, several threads and runtimes that may compute
elsewhere are timed by the wall clock.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from autodistill.core.records import LatencyTarget

Clock = Callable[[], float]
"""Seconds that only go forward."""

_HERE = ("torch", "torch-compile", "onnxruntime")
"""Runtimes that compute in the thread that calls them, where they may use one."""
_SPIN_SECONDS = 0.002
_STEPS = 20


def clock_of(target: LatencyTarget) -> Clock:
    """The clock by which an inference on ``target`` is timed."""
    alone = target.device == "cpu" and target.threads == 1 and target.runtime in _HERE
    return time.thread_time if alone and _is_fine() else time.perf_counter


@functools.cache
def _is_fine() -> bool:
    """Whether processor time goes on in small steps; some sandboxes count it in hundredths of a second."""
    end, seen = time.thread_time() + _SPIN_SECONDS, {time.thread_time()}
    give_up = time.perf_counter() + 100 * _SPIN_SECONDS
    while (now := time.thread_time()) < end and time.perf_counter() < give_up:
        seen.add(now)
    return len(seen) > _STEPS
