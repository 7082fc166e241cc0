"""Where the trials of a study came from: machine, images and teacher, kept with the study for its report.

Names of files and folders are left out: a report is made to be passed on.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autodistill.search.study import Study
    from autodistill.training.datasets import ImageData
    from autodistill.training.teacher import Teacher

MACHINES, SOURCES = "machines", "sources"


def record_machine(study: Study, workers: int) -> None:
    """Add this machine to those that the study ran on; the same one twice is kept once."""
    facts = {**machine_facts(), "workers": workers}
    machines = list(study.optuna.user_attrs.get(MACHINES, []))
    if facts not in machines:
        study.optuna.set_user_attr(MACHINES, [*machines, facts])


def record_sources(study: Study, data: ImageData, teacher: Teacher) -> None:
    """Keep what the images and the teacher were: fingerprints, counts, shape."""
    study.optuna.set_user_attr(
        SOURCES,
        {
            "data": data.fingerprint,
            "train_images": len(data.train.labels),
            "validation_images": len(data.val.labels),
            "image_size": data.image_size,
            "channels": data.channels,
            "classes": [str(name) for name in data.classes[:1000]],
            "teacher": teacher.fingerprint,
        },
    )


def machine_facts() -> dict[str, Any]:
    """Processor, cores, memory in GiB, system, and the GPUs where torch is loaded already."""
    import psutil

    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return facts


def _processor() -> str:
    """The processor's trade name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
