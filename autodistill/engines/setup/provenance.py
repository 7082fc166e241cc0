"""Provenance of a study: machine, images and teacher, stored with the study for its report.

Names of files and folders are left out, since reports are passed on to others.
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
    """Add this machine and its number of workers to the machines of the study, without duplicates."""
    facts = {**machine_facts(), "workers": workers}
    machines = list(study.optuna.user_attrs.get(MACHINES, []))
    if facts not in machines:
        study.optuna.set_user_attr(MACHINES, [*machines, facts])


def sources(data: ImageData, teacher: Teacher) -> dict[str, Any]:
    """Return fingerprints, counts and shape of the images, and the fingerprint of the teacher."""
    return {**image_facts(data), "teacher": teacher.fingerprint}


def image_facts(data: ImageData) -> dict[str, Any]:
    """Return fingerprint, counts and shape of the images."""
    unlabelled = {}
    if data.unlabelled is not None:
        left_out = sum(data.unlabelled.left_out.values())
        unlabelled = {"unlabelled_images": len(data.unlabelled), "unlabelled_images_left_out": left_out}
    return {
        "data": data.fingerprint,
        "train_images": len(data.train.labels),
        "validation_images": len(data.val.labels),
        **unlabelled,
        "image_size": data.image_size,
        "channels": data.channels,
        "classes": [str(name) for name in data.classes[:1000]],
    }


def record_sources(study: Study, found: Mapping[str, Any]) -> None:
    """Store the result of :func:`sources` with the study, after checking it against earlier trials.

    Raises:
        UsageError: The trials of the study had other images or another teacher.
    """
    check_sources(study, found)
    study.optuna.set_user_attr(SOURCES, dict(found))


def check_images(study: Study) -> None:
    """Read the images of a study, and check that its trials had the same images.

    Raises:
        DataError: Some files cannot be read, or the test part does not agree with training; it is not used here.
        UsageError: The trials had other images; the message lists the differences.
    """
    from autodistill.training.data import datasets
    from autodistill.training.runtime.cache_folder import cache_folder

    cache = cache_folder().absolute()
    datasets.check_files(study.config.data, cache, begun=study.spent.epochs > 0)
    data = datasets.load_images(study.config.data, cache)
    check_sources(study, image_facts(data))
    datasets.check_parts(study.config.data, data, cache)


def check_sources(study: Study, found: Mapping[str, Any]) -> None:
    """Check that the trials of the study had the same images and teacher; only keys in ``found`` are compared.

    Raises:
        UsageError: They had others; the message lists the differences.
    """
    stored = study.optuna.user_attrs.get(SOURCES, {})
    if study.spent.epochs <= 0:  # nothing is trained yet, so the images may have been corrected
        return
    changed = [key for key in found if key in stored and stored[key] != found[key]]
    if not changed:
        return
    differing = ", ".join(_difference(key, stored[key], found[key]) for key in changed)
    raise UsageError(
        f"the images or the teacher differ from those of the trials of study {study.name!r}: {differing}. Accuracies "
        "cannot be compared: restore the earlier images and teacher, or start a new study in another folder with "
        "--warm-start and this study's folder."
    )


def _difference(key: str, before: Any, now: Any) -> str:
    what = key.replace("_", " ")
    if isinstance(now, int):
        return f"{what} {before:,} then, {now:,} now"
    if key == "classes":
        return f"other classes ({len(before)} then, {len(now)} now)"
    return {"data": "other images or labels", "teacher": "another teacher"}.get(key, f"{what} {before} then, {now} now")


def machine_facts() -> dict[str, Any]:
    """Return processor, cores, memory in GiB, system, and the GPUs if torch is already loaded."""
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
    """Return the processor's trade name, if the system states it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
