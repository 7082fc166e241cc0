"""Slots: the places where candidates are evaluated, one worker each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autodistill.core.errors import ResourceError, UsageError
from autodistill.core.records import WorkerContext


@dataclass(frozen=True)
class Slot:
    """One worker's place.

    Attributes:
        index: from 0.
        device: torch device string.
        threads: CPU threads of the worker, and of each of its helpers.
        devices: all its devices, ``device`` first, where a candidate is trained on several; else empty.
        memory_share: part of the device's memory that it may use.
    """

    index: int
    device: str = "cpu"
    threads: int = 1
    devices: tuple[str, ...] = ()
    memory_share: float = 1.0

    def context(self, **connections: Any) -> WorkerContext:
        """What its worker is told."""
        shape: dict[str, Any] = {"devices": self.devices, "memory_share": self.memory_share}
        return WorkerContext(self.index, self.device, self.threads, **shape, **connections)


def cpu_count() -> int:
    """Cores this process may use (a container's limit counts, where Python can see it)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_slots(
    workers: int | None = None,
    *,
    use_gpus: bool = True,
    limited: bool = True,
    devices_per_trial: int = 1,
    slots_per_gpu: int = 1,
) -> tuple[Slot, ...]:
    """Slots of this machine: GPUs round-robin where there are any, CPU threads divided.

    Args:
        workers: number of slots; ``None``: as many as the GPUs hold, or one when there is none.
        use_gpus: look for GPUs at all (loads torch).
        limited: refuse more workers than this machine can hold; false when they run on other machines.
        devices_per_trial: GPUs, or groups of CPU threads, that train one candidate together.
        slots_per_gpu: workers that share one GPU.

    Raises:
        UsageError: fewer than one worker, or GPUs that are to be shared and joined at once.
        ResourceError: more workers or devices than this machine can hold.
    """
    if devices_per_trial > 1 and slots_per_gpu > 1:
        raise UsageError(
            "a trial on several devices needs them whole: use devices_per_trial or slots_per_gpu, not both."
        )
    gpus = _gpu_count() if use_gpus else 0
    count = workers if workers is not None else max(1, gpus * slots_per_gpu // devices_per_trial)
    if count < 1:
        raise UsageError(f"workers must be at least 1, got {count}.")
    if limited:
        _check_room(count, devices_per_trial, gpus, per_core=8 if use_gpus else 64)
    threads = max(1, cpu_count() // (count * devices_per_trial))
    sharing = -(-count * devices_per_trial // gpus) if gpus else 1
    share = 1.0 if sharing <= 1 else round(1 / sharing, 4)
    groups = [_devices(i, devices_per_trial, gpus) for i in range(count)]
    return tuple(Slot(i, g[0], threads, g if len(g) > 1 else (), share) for i, g in enumerate(groups))


def devices_each(slots: Sequence[Slot], gpus_per_worker: float | None = None) -> float:
    """Devices that a worker takes: several for a trial on several, a part where workers share a GPU.

    Args:
        slots: of all workers.
        gpus_per_worker: as a cluster was asked for it; ``None``: as on this machine.
    """
    together = len(slots[0].devices) or 1
    if gpus_per_worker:
        return float(gpus_per_worker)
    gpus = {slot.device for slot in slots if slot.device.startswith("cuda")}
    alone = together > 1 or not gpus or gpus_per_worker is not None
    return float(together) if alone else len(gpus) / len(slots)


def _check_room(count: int, each: int, gpus: int, *, per_core: int) -> None:
    """A function of the user may well wait for something else than this machine, and gets more workers per core."""
    if gpus and count * each > gpus and each > 1:
        raise ResourceError(f"{count} workers with {each} devices each do not fit this machine, which has {gpus} GPUs.")
    limit = (64 * gpus if gpus else per_core * cpu_count()) // each
    if count > limit:
        raise ResourceError(
            f"{count} workers do not fit this machine ({cpu_count()} cores, {gpus} GPUs); at most {limit}."
        )


def _devices(index: int, count: int, gpus: int) -> tuple[str, ...]:
    first = index * count
    return tuple(f"cuda:{(first + i) % gpus}" if gpus else "cpu" for i in range(count))


def _gpu_count() -> int:
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
