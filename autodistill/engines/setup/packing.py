"""How many workers share one GPU: from the memory and the computing time that a few students of the space take.

Workers of one GPU overlap where their kernels leave it idle, which is most of the time with small students. With CUDA
MPS running (``nvidia-cuda-mps-control -d``) kernels of several workers also run at the same moment; CUDA finds it by
itself. Each worker may use its share of the memory and no more, so that one cannot starve the others.
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

MOST = 16  # workers on one GPU
UNKNOWN = 4  # where nothing says how busy the GPU is
_SPARE = 0.9  # of the free memory is given out
_CONTEXT_BYTES = 600 * 2**20  # a CUDA context with its libraries, in every worker
_STUDENTS, _SECONDS, _TRIES = 3, 1.5, 20


@dataclass(frozen=True)
class Load:
    """What the training of one student takes of a GPU.

    Attributes:
        bytes: peak of its memory, without the CUDA context.
        busy: share of the time in which the GPU computes, in (0, 1]; ``None`` where nothing can tell.
    """

    bytes: int
    busy: float | None = None


def slots_for(loads: Sequence[Load], *, free_bytes: int, cores_per_gpu: int) -> int:
    """Workers per GPU: as many as its memory holds at their largest, its computing time needs, and cores can feed.

    Args:
        loads: of some students, measured alone.
        free_bytes: memory of the GPU that nobody uses.
        cores_per_gpu: CPU cores for the workers of one GPU; each keeps about one busy.
    """
    fitting = int(free_bytes * _SPARE / (max((load.bytes for load in loads), default=0) + _CONTEXT_BYTES))
    known = [load.busy for load in loads if load.busy is not None]
    useful = math.ceil(len(known) / max(sum(known), 1e-3)) if known else UNKNOWN
    return max(1, min(fitting, useful, cores_per_gpu, MOST))


def measured_packing(study: Study, watch: Watch, slots: Sequence[Slot]) -> int:
    """Workers per GPU for a study of images whose data are there; tells ``watch`` what was found."""
    from autodistill.training.data import datasets
    from autodistill.training.runtime.cache_folder import cache_folder

    config = study.config
    data = datasets.load_images(config.data, cache_folder().absolute())  # as in prepare: decoded images are held once
    shape = {"image_size": data.image_size, "channels": data.channels, "num_classes": len(data.classes)}
    watch.stage("slots", "measuring how many workers a GPU holds")
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
    """Train a few students of ``space`` for a moment each on ``device``; returns the workers per GPU.

    Args:
        space: the study's.
        shape: ``image_size``, ``channels`` and ``num_classes``.
        batch: images per step.
        device: a GPU.
        gpus: of this machine.
        seed: which students are drawn.
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
    """Memory and computing time of forward and backward passes of one student."""
    import torch

    from autodistill.training.students.build import build_student

    model = build_student(student, **shape).to(device).train()
    images = torch.rand(batch, shape["channels"], shape["image_size"], shape["image_size"], device=device)
    torch.cuda.reset_peak_memory_stats(device)
    readings: list[float] = []
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        model(images).square().mean().backward()
        readings += _utilization(device)
    weights = sum(value.nbytes for value in model.parameters())
    peak = int(torch.cuda.max_memory_reserved(device)) + 3 * weights  # moments of the optimizer, averaged weights
    return Load(peak, max(0.01, float(np.mean(readings[len(readings) // 2 :]))) if readings else None)


def _utilization(device: str) -> list[float]:
    """What NVIDIA's management library says, in [0, 1]; nothing where it (``nvidia-ml-py``) is not installed."""
    import torch

    try:
        return [torch.cuda.utilization(torch.device(device)) / 100]
    except (ImportError, RuntimeError):
        return []
