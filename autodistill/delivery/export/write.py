"""Export of a student: files for other programs, each checked on real images, and their companion files.

An exported folder is complete or absent: files are written and checked in a temporary folder, then moved in one step,
with ``MANIFEST.json`` holding the SHA-256 of each. The folder also has ``preprocess.json``, ``provenance.json``, a
model card, and ``predict.py``, which runs without autodistill. The test split is not opened here. For a trial in its
int8 form, the file that the search measured is exported (``variant.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autodistill.core.errors import UsageError
from autodistill.core.records import TrialRecord
from autodistill.core.scratch import scratch_folder
from autodistill.delivery.export.checks import (
    COMPARED,
    MOST_VALIDATED,
    Checked,
    Validation,
    check_file,
    failed,
    with_latency,
)
from autodistill.delivery.export.exported import Exported
from autodistill.delivery.export.formats import Images, Subject, in_batches
from autodistill.delivery.export.formats import formats as known_formats
from autodistill.delivery.export.variant import formats_for, write_measured
from autodistill.delivery.export.weights import AUTO, Source, source_of, take_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from autodistill.config.study_file import StudyConfig
    from autodistill.training.data.datasets import ImageData

MAX_DROP = 0.01
CALIBRATION = 256
MADE_BY = "autodistill export"
Progress = Callable[[str], None]


def _no_progress(_text: str) -> None:
    """Ignore progress."""


def export(
    directory: str | Path,
    trial: TrialRecord,
    out: str | Path,
    *,
    formats: str | Sequence[str] | None = None,
    weights: str = AUTO,
    max_drop: float = MAX_DROP,
    latency: bool = True,
    data: ImageData | None = None,
    progress: Progress = _no_progress,
) -> Exported:
    """Export the student of a finished trial.

    Args:
        directory: folder of the study.
        trial: the trial; if it has a ``variant``, the measured file of that variant is exported.
        out: folder to write; an earlier export in it is replaced.
        formats: ``safetensors``, ``onnx``, ``onnx-int8``, ``onnx-fp16``, ``torchscript``, ``torch-export``, ``all``.
            If omitted, ``safetensors`` and ``onnx``; for an int8 variant, ``onnx-int8``.
        weights: ``search``, ``verified``, or ``auto``: verified weights if ``verify`` stored them, else the search's.
        max_drop: validation accuracy that an inexact file may lose, as a fraction; for a variant, relative to its
            measured accuracy.
        latency: measure the files while holding the machine's measurement lock.
        data: the study's images, if they are already loaded.
        progress: function called with a description of each step.

    Returns:
        The files with their checks. A file that failed its check is not in the folder; its entry has the reason.

    Raises:
        UnknownNameError: a format does not exist.
        UsageError: a format does not fit the variant, ``out`` holds something else, or verified weights are requested
            for an unverified trial or a variant.
        StoreError: the trial has no finished student, or the file of its variant is missing.
    """
    from autodistill.training.data import datasets

    names, target = formats_for(trial, formats), Path(out)
    if not 0 <= max_drop <= 1:
        raise UsageError(f"max_drop is {max_drop:g}; it is a fraction of accuracy, from 0 to 1.")
    refuse_foreign(target)
    root = Path(directory)
    config = study_config(root)
    source = source_of(root, trial, weights)
    model, facts = take_weights(root, trial, source)
    assert config.data is not None
    facts = {**facts, "resize": config.data.resize}
    if data is None:
        data = datasets.load_images(config.data)
    subject = Subject(model, facts, normalized(evenly_spaced(data.train.images, CALIBRATION), facts))
    validation = validate(subject, data)
    facts = {**facts, **label_facts(validation, source)}
    with scratch_folder("export") as scratch:
        folder = Path(scratch)
        if trial.variant == "fp32":
            checked = _write_all(names, subject, folder, validation, max_drop, progress)
        else:
            progress(f"checking the {trial.variant} file that the search measured")
            checked = [write_measured(root, trial, folder, validation, max_drop)]
        if latency:
            progress("measuring latency")
            checked = with_latency(checked, folder, config.latency, validation.images[:1])
        for one in checked:
            if one.state != "ok":
                (folder / one.file).unlink(missing_ok=True)
        found = Exported(
            target, trial.number, dict(trial.student), validation.accuracy, len(validation.labels), tuple(checked),
            source, trial.variant,
        )  # fmt: skip
        _finish(found, folder, root, config, trial, facts, data)
    return found


def normalized(images: NDArray[np.uint8], facts: Mapping[str, Any]) -> Images:
    """Convert ``uint8`` images to the student's input, ``float32 (n, channels, side, side)``."""
    from autodistill.training.students.student_input import StudentInput

    return StudentInput.of(facts).of_images(images)


def validate(subject: Subject, data: ImageData) -> Validation:
    """Run the network in memory on the images for the checks; return images and logits."""
    import torch

    images = normalized(data.val.images[:MOST_VALIDATED], subject.facts)

    def predict(block: Images) -> Images:
        with torch.inference_mode():
            logits: Images = subject.model(torch.from_numpy(block)).numpy()
        return logits

    spare = normalized(evenly_spaced(data.train.images, max(0, COMPARED - len(images))), subject.facts)
    compared = np.concatenate([images[:COMPARED], spare])
    logits = in_batches(predict, images)
    return Validation(images, data.val.labels[:MOST_VALIDATED], logits, compared, in_batches(predict, compared))


def label_facts(validation: Validation, source: Source) -> dict[str, Any]:
    """Return, for several labels per image, a threshold for each label, and figures with it; else nothing.

    Thresholds are probabilities, chosen on the validation images so that the F1 score of each label is highest.
    """
    if not validation.several:
        return {}
    from autodistill.training.loop import multilabel_measures as measures

    logits, labels = validation.logits.astype(np.float64), validation.labels
    cuts = measures.best_thresholds(logits, labels)
    hits, false, missed, _ = measures.label_counts(logits, labels, cuts).T
    return {
        "thresholds": [float(one) for one in measures.sigmoid(cuts)],
        "thresholds_on": f"{len(labels):,} validation images"
        + ("" if source.trained_on == "train" else ", which the student was trained on too"),
        "label_figures": {
            "images": (hits + missed).tolist(),
            "precision": (hits / np.maximum(hits + false, 1)).tolist(),
            "recall": (hits / np.maximum(hits + missed, 1)).tolist(),
            "f1": measures.label_f1(logits, labels, cuts).tolist(),
        },
        "average_precision": validation.average_precision(),
    }


def refuse_foreign(out: Path) -> None:
    """Refuse to overwrite a folder that holds anything but an earlier export.

    Raises:
        UsageError: the path is a file, or the folder was not written by an export or has additional files.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder that does not exist yet.")
    inside = {path.name for path in out.iterdir()}
    if not inside:
        return
    try:
        manifest = json.loads((out / "MANIFEST.json").read_text(encoding="utf-8"))
        ours = manifest["facts"]["made_by"] == MADE_BY
        known = {*manifest["files"], "MANIFEST.json"}
    except (OSError, ValueError, KeyError, TypeError):
        ours, known = False, set()
    if not ours:
        raise UsageError(f"{out} is not empty and was not made by '{MADE_BY}'; give another folder.")
    if foreign := sorted(inside - known):
        raise UsageError(
            f"{out} holds files that are not from an export: {', '.join(foreign[:5])}; move them, or give another "
            "folder."
        )


def study_config(root: Path) -> StudyConfig:
    """Load the configuration of the study in a folder.

    Raises:
        UsageError: the study has no images.
    """
    from autodistill.config.study_file import StudyConfig
    from autodistill.engines.setup.study_setup import STUDY_FILE

    config = StudyConfig.load(root / STUDY_FILE)
    if config.data is None:
        raise UsageError(f"{root} is a study without images; only students of images can be exported.")
    return config


def evenly_spaced(images: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return ``count`` images, evenly spaced from the first to the last."""
    if count == 0:
        return images[:0]
    rows = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64))
    return np.asarray(images[rows])


def _write_all(
    names: Sequence[str], subject: Subject, folder: Path, validation: Validation, max_drop: float, progress: Progress
) -> list[Checked]:
    """Write and check all formats and the formats that they are made from; return only the requested ones."""
    done: dict[str, Checked] = {}
    for name in dict.fromkeys(part for wanted in names for part in (known_formats.get(wanted).needs, wanted) if part):
        form = known_formats.get(name)
        progress(f"writing and checking {form.file}")
        before = done.get(form.needs)
        if before is not None and before.state != "ok":
            done[name] = replace(before, format=name, file=form.file, state="failed")
            continue
        try:
            remark = form.write(subject, folder)
        except Exception as error:  # a failed format must not prevent the others
            done[name] = failed(name, error)
            continue
        done[name] = check_file(name, folder / form.file, validation, max_drop=max_drop, remark=remark, threads=1)
    for name, one in done.items():
        if name not in names:
            (folder / one.file).unlink(missing_ok=True)
    return [done[name] for name in names]


def _finish(
    found: Exported,
    folder: Path,
    root: Path,
    config: StudyConfig,
    trial: TrialRecord,
    facts: Mapping[str, Any],
    data: ImageData,
) -> None:
    """Add the companion files, and move the folder to its place."""
    from autodistill.delivery.export.companion_files import companion_files
    from autodistill.training.runtime.durable_files import write_folder

    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    files |= companion_files(found, files, root=root, config=config, trial=trial, facts=facts, data=data)
    made = {"made_by": MADE_BY, "study": config.name, "trial": trial.number, "variant": trial.variant}
    write_folder(found.folder, files, facts=made)
    found.folder.chmod(0o755)
