"""Slots: the places where candidates are evaluated, one worker each."""

from __future__ import annotations

import os
from dataclasses import dataclass

from autodistill.errors import ResourceError, UsageError


@dataclass(frozen=True)
class Slot:
    """One worker's place.

    Attributes:
        index: from 0.
        device: torch device string.
        threads: CPU threads of the worker.
    """

    index: int
    device: str = "cpu"
    threads: int = 1


def cpu_count() -> int:
    """Cores this process may use (a container's limit counts, where Python can see it)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_slots(workers: int | None = None, *, use_gpus: bool = True, limited: bool = True) -> tuple[Slot, ...]:
    """Slots of this machine: GPUs round-robin where there are any, CPU threads divided.

    Args:
        workers: number of slots; ``None``: one per GPU, or one when there is none.
        use_gpus: look for GPUs at all (loads torch).
        limited: refuse more workers than this machine can hold; false when they run on other machines.

    Raises:
        UsageError: fewer than one worker.
        ResourceError: more workers than this machine can hold.
    """
    gpus = _gpu_count() if use_gpus else 0
    count = workers if workers is not None else max(1, gpus)
    if count < 1:
        raise UsageError(f"workers must be at least 1, got {count}.")
    per_core = 8 if use_gpus else 64  # a function of the user may well wait for something else than this machine
    limit = 64 * gpus if gpus else per_core * cpu_count()
    if limited and count > limit:
        raise ResourceError(
            f"{count} workers do not fit this machine ({cpu_count()} cores, {gpus} GPUs); at most {limit}."
        )
    threads = max(1, cpu_count() // count)
    devices = [f"cuda:{i % gpus}" if gpus else "cpu" for i in range(count)]
    return tuple(Slot(i, device, threads) for i, device in enumerate(devices))


def _gpu_count() -> int:
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
