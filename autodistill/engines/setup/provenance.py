"""Where the trials of a study came from: machine, images and teacher, kept with the study for its report.

Names of files and folders are left out: a report is made to be passed on.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import UsageError

if TYPE_CHECKING:
    from autodistill.search.study.study import Study
    from autodistill.training.data.datasets import ImageData
    from autodistill.training.teachers.teacher import Teacher

MACHINES, SOURCES = "machines", "sources"


def record_machine(study: Study, workers: int) -> None:
    """Add this machine to those that the study ran on; the same one twice is kept once."""
    facts = {**machine_facts(), "workers": workers}
    machines = list(study.optuna.user_attrs.get(MACHINES, []))
    if facts not in machines:
        study.optuna.set_user_attr(MACHINES, [*machines, facts])


def sources(data: ImageData, teacher: Teacher) -> dict[str, Any]:
    """What the images and the teacher are: fingerprints, counts, shape."""
    return {**image_facts(data), "teacher": teacher.fingerprint}


def image_facts(data: ImageData) -> dict[str, Any]:
    """What the images are."""
    return {
        "data": data.fingerprint,
        "train_images": len(data.train.labels),
        "validation_images": len(data.val.labels),
        "image_size": data.image_size,
        "channels": data.channels,
        "classes": [str(name) for name in data.classes[:1000]],
    }


def record_sources(study: Study, found: Mapping[str, Any]) -> None:
    """Keep what :func:`sources` found; a study that has trained already must have been trained on the same.

    Raises:
        UsageError: accuracies of other images, or students of another teacher, are in the study.
    """
    check_sources(study, found)
    study.optuna.set_user_attr(SOURCES, dict(found))


def check_images(study: Study) -> None:
    """Read the images of a study that has some, and refuse others than its trials had.

    Raises:
        DataError: they cannot be read, those of the test part included, which nobody looks at here.
        UsageError: says what differs.
    """
    from autodistill.training.data import datasets
    from autodistill.training.runtime.cache_folder import cache_folder

    cache = cache_folder().absolute()
    datasets.check_files(study.config.data, cache, begun=study.spent.epochs > 0)
    check_sources(study, image_facts(datasets.load_images(study.config.data, cache)))


def check_sources(study: Study, found: Mapping[str, Any]) -> None:
    """Refuse images or a teacher that the trials of the study did not have; keys that ``found`` lacks do not count.

    Raises:
        UsageError: says what differs.
    """
    stored = study.optuna.user_attrs.get(SOURCES, {})
    if study.spent.epochs <= 0:  # nothing to compare with: they may have been mended
        return
    changed = [key for key in found if key in stored and stored[key] != found[key]]
    if not changed:
        return
    said = ", ".join(_difference(key, stored[key], found[key]) for key in changed)
    raise UsageError(
        f"the trials of study {study.name!r} had others: {said}. Accuracies on both cannot be compared: bring back "
        "what it had, or start a new study in another folder, with --warm-start and this one's."
    )


def _difference(key: str, before: Any, now: Any) -> str:
    what = key.replace("_", " ")
    if isinstance(now, int):
        return f"{what} {before:,} then, {now:,} now"
    if key == "classes":
        return f"other classes ({len(before)} then, {len(now)} now)"
    return {"data": "other images or labels", "teacher": "another teacher"}.get(key, f"{what} {before} then, {now} now")


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
