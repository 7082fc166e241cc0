"""Choice of the number of workers per GPU, from the memory and computing time of a few students of the space.

Workers on one GPU use the time in which the kernels of the others leave it idle, which is most of the time with small
students. With CUDA MPS (``nvidia-cuda-mps-control -d``; CUDA finds it by itself) kernels of several workers also run at
the same time. Each worker is limited to its share of the memory, so that none can use up the memory of the others.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autodistill.core.errors import InfeasibleError
from autodistill.engines.driving.slots import Slot, cpu_count

if TYPE_CHECKING:
    from autodistill.engines.monitor.watch import Watch
    from autodistill.search.space.space import Space
    from autodistill.search.study.study import Study

MOST = 16  # most workers on one GPU
UNKNOWN = 4  # workers on one GPU if its utilization cannot be read
_USABLE = 0.9  # share of the free memory that workers may use
_CONTEXT_BYTES = 600 * 2**20  # size of a CUDA context with its libraries, one per worker
_STUDENTS, _SECONDS, _TRIES = 3, 1.5, 20  # students to measure, seconds for each, most students to try


@dataclass(frozen=True)
class Load:
    """Use of a GPU by the training of one student.

    Attributes:
        bytes: Peak memory in bytes, without the CUDA context.
        busy: Share of the time in which the GPU computes, in (0, 1]; ``None`` if it cannot be read.
    """

    bytes: int
    busy: float | None = None


def slots_for(loads: Sequence[Load], *, free_bytes: int, cores_per_gpu: int) -> int:
    """Return the number of workers per GPU, limited by its memory, its computing time, and the CPU cores.

    Args:
        loads: Use of the GPU by some students, each measured alone.
        free_bytes: Free memory of the GPU in bytes.
        cores_per_gpu: CPU cores for the workers of one GPU; each worker keeps about one busy.
    """
    fitting = int(free_bytes * _USABLE / (max((load.bytes for load in loads), default=0) + _CONTEXT_BYTES))
    known = [load.busy for load in loads if load.busy is not None]
    useful = math.ceil(len(known) / max(sum(known), 1e-3)) if known else UNKNOWN
    return max(1, min(fitting, useful, cores_per_gpu, MOST))


def measured_packing(study: Study, watch: Watch, slots: Sequence[Slot]) -> int:
    """Measure the number of workers per GPU for a study of images, and report it to ``watch``."""
    from autodistill.training.data import datasets
    from autodistill.training.runtime.cache_folder import cache_folder

    config = study.config
    data = datasets.load_images(config.data, cache_folder().absolute())  # shares the images with prepare
    shape = {"image_size": data.image_size, "channels": data.channels, "num_classes": len(data.classes)}
    watch.stage("slots", "measuring how many workers fit on a GPU")
    found = measure(
        study.space,
        shape,
        batch=min(int(config.training.get("batch_size", 64)), len(data.train)),
        device=slots[0].device,
        gpus=len({slot.device for slot in slots}),
        seed=study.seed,
    )
    watch.stage("slots", f"{found} workers per GPU")
    return found


def measure(space: Space, shape: dict[str, Any], *, batch: int, device: str, gpus: int, seed: int = 0) -> int:
    """Train a few students of ``space`` briefly on ``device``, and return the number of workers per GPU.

    Args:
        space: Search space of the study.
        shape: ``image_size``, ``channels`` and ``num_classes``.
        batch: Images per step.
        device: Torch device string of a GPU.
        gpus: Number of GPUs of this machine.
        seed: Random seed of the drawn students.
    """
    import torch

    rng = np.random.default_rng(seed)
    loads: list[Load] = []
    for _ in range(_TRIES):
        with contextlib.suppress(InfeasibleError):
            loads.append(_load(space.nest(space.sample(rng))["student"], shape, batch, device))
        if len(loads) == _STUDENTS:
            break
    torch.cuda.empty_cache()
    free = int(torch.cuda.mem_get_info(device)[0])
    return slots_for(loads, free_bytes=free, cores_per_gpu=max(1, cpu_count() // gpus))


def _load(student: dict[str, Any], shape: dict[str, Any], batch: int, device: str) -> Load:
    """Measure memory and utilization during forward and backward passes of one student."""
    import torch

    from autodistill.training.students.build import build_student
    from autodistill.training.students.resolution import side_of

    model = build_student(student, **shape).to(device).train()
    side = side_of(student, shape["image_size"])
    images = torch.rand(batch, shape["channels"], side, side, device=device)
    torch.cuda.reset_peak_memory_stats(device)
    readings: list[float] = []
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        model(images).square().mean().backward()
        readings += _utilization(device)
    weights = sum(value.nbytes for value in model.parameters())
    peak = int(torch.cuda.max_memory_reserved(device)) + 3 * weights  # optimizer moments, averaged weights
    return Load(peak, max(0.01, float(np.mean(readings[len(readings) // 2 :]))) if readings else None)


def _utilization(device: str) -> list[float]:
    """Read the GPU utilization in [0, 1] from NVIDIA's library; empty if ``nvidia-ml-py`` is not installed."""
    import torch

    try:
        return [torch.cuda.utilization(torch.device(device)) / 100]
    except (ImportError, RuntimeError):
        return []
