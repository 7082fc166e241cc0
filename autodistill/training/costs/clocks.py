"""Chooses the clock of a latency measurement: processor time of the computing thread, or wall-clock time.

An inference on one CPU thread does not wait for anything, so on a quiet machine its duration equals its processor time.
On a busy machine, processor time does not include the time for which other programs occupy the core. Wall-clock time
does: two programs that compute continuously on the same two cores increase it by a third to a half, and repetition does
not correct that. Contention for caches and memory still affects both. GPUs, several threads, and runtimes that may
compute in other threads are timed by the wall clock.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from autodistill.core.records import LatencyTarget

Clock = Callable[[], float]
"""Returns seconds that never decrease."""

_IN_CALLING_THREAD = ("torch", "torch-compile", "onnxruntime")
"""Runtimes that compute in the calling thread if they are limited to one thread."""
_SPIN_SECONDS = 0.002
_STEPS = 20


def clock_of(target: LatencyTarget) -> Clock:
    """Return the clock for timing an inference on ``target``."""
    single = target.device == "cpu" and target.threads == 1 and target.runtime in _IN_CALLING_THREAD
    return time.thread_time if single and _has_fine_steps() else time.perf_counter


@functools.cache
def _has_fine_steps() -> bool:
    """Return whether processor time advances in small steps; some sandboxes count it in hundredths of a second."""
    end, seen = time.thread_time() + _SPIN_SECONDS, {time.thread_time()}
    give_up = time.perf_counter() + 100 * _SPIN_SECONDS
    while (now := time.thread_time()) < end and time.perf_counter() < give_up:
        seen.add(now)
    return len(seen) > _STEPS
