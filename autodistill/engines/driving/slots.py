"""Slots: the devices and CPU threads that each worker uses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autodistill.core.errors import ResourceError, UsageError
from autodistill.core.records import WorkerContext


@dataclass(frozen=True)
class Slot:
    """Devices and CPU threads of one worker.

    Attributes:
        index: Number of the worker, from 0.
        device: Torch device string.
        threads: CPU threads of the worker, and of each of its helper processes.
        devices: All devices of the worker, ``device`` first, if it trains a candidate on several; else empty.
        memory_share: Share of the device's memory that the worker may use, in (0, 1].
    """

    index: int
    device: str = "cpu"
    threads: int = 1
    devices: tuple[str, ...] = ()
    memory_share: float = 1.0

    def context(self, **connections: Any) -> WorkerContext:
        """Return the context of its worker, with ``connections`` (``progress``, ``should_stop``, …) filled in."""
        shape: dict[str, Any] = {"devices": self.devices, "memory_share": self.memory_share}
        return WorkerContext(self.index, self.device, self.threads, **shape, **connections)


def cpu_count() -> int:
    """Return the number of CPU cores this process may use, within a container's limit if Python can see it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_slots(
    workers: int | None = None,
    *,
    use_gpus: bool = True,
    limited: bool = True,
    devices_per_trial: int = 1,
    slots_per_gpu: int = 1,
) -> tuple[Slot, ...]:
    """Make the slots of this machine: GPUs in turn if there are any, CPU threads divided equally.

    Args:
        workers: Number of slots; ``None``: as many as fit on the GPUs, or one without a GPU.
        use_gpus: Whether to use GPUs (loads torch).
        limited: Whether to refuse more workers than fit on this machine; false if they run on other machines.
        devices_per_trial: Number of GPUs, or groups of CPU threads, that train one candidate together.
        slots_per_gpu: Number of workers that share one GPU.

    Raises:
        UsageError: There is less than one worker, or both ``devices_per_trial`` and ``slots_per_gpu`` are above 1.
        ResourceError: More workers or devices are requested than fit on this machine.
    """
    if devices_per_trial > 1 and slots_per_gpu > 1:
        raise UsageError(
            "a trial on several devices cannot share them: use devices_per_trial or slots_per_gpu, not both."
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
    """Return the number of devices per worker: above 1 for trials on several, below 1 if workers share a GPU.

    Args:
        slots: Slots of all workers.
        gpus_per_worker: Number of GPUs per worker on a cluster; ``None``: as on this machine.
    """
    together = len(slots[0].devices) or 1
    if gpus_per_worker:
        return float(gpus_per_worker)
    gpus = {slot.device for slot in slots if slot.device.startswith("cuda")}
    alone = together > 1 or not gpus or gpus_per_worker is not None
    return float(together) if alone else len(gpus) / len(slots)


def _check_room(count: int, each: int, gpus: int, *, per_core: int) -> None:
    """Check that the workers fit on this machine.

    Args:
        count: Number of workers.
        each: Devices per worker.
        gpus: Number of GPUs.
        per_core: Most workers per CPU core; higher for a user's own function, which may wait for other machines.

    Raises:
        ResourceError: They do not fit.
    """
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
