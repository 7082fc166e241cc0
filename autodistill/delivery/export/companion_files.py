"""Files that accompany exported models: preprocessing, provenance, ``predict.py`` and the model card.

They contain no path of the machine that wrote them: sources are named by the last part of their path.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files as resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import AutodistillError
from autodistill.core.records import MULTICLASS, MULTILABEL, TrialRecord
from autodistill.training.data.sources.square import PADDING

if TYPE_CHECKING:
    from autodistill.config.study_file import StudyConfig
    from autodistill.delivery.export.exported import Exported
    from autodistill.training.data.datasets import ImageData

_RESIZE = {
    "crop": "shorter side to {size}, centre crop,",
    "squash": "both sides to {size}, whatever the proportions,",
    "letterbox": f"longer side to {{size}}, the rest filled with grey {PADDING} of 255 at both ends,",
}
_PACKAGES = ("autodistill-search", "torch", "timm", "onnx", "onnxruntime", "optuna", "numpy")


def companion_files(
    found: Exported,
    files: Mapping[str, bytes],
    *,
    root: Path,
    config: StudyConfig,
    trial: TrialRecord,
    facts: Mapping[str, Any],
    data: ImageData,
) -> dict[str, bytes]:
    """Return name and content of all files that are not models.

    Args:
        found: the export with its checks.
        files: name and content of the models.
        root: folder of the study.
        config: configuration of the study.
        trial: trial whose student was exported.
        facts: facts of the student.
        data: the study's images.
    """
    from autodistill.delivery.export.model_card import card
    from autodistill.search.results.verified import read_verified

    out = {"preprocess.json": _json(preprocessing(facts))}
    if any(name.endswith(".onnx") for name in files):
        template = resources("autodistill.delivery.export").joinpath("templates", "predict.py.txt")
        out["predict.py"] = _default_model(template.read_text(encoding="utf-8"), found).encode()
    started = facts.get("weights", {})  # absent in students of older versions
    initial = started and {**started, "source": _named_weights(str(started["source"]))}
    origin = provenance(found, root=root, config=config, trial=trial, data=data, initial=initial)
    verified = read_verified(root) if found.variant == "fp32" else None  # only fp32 students are verified
    # students without accuracy have no finished run yet
    done = [one.trial for one in verified.students if one.accuracy is not None] if verified else []
    known = verified if trial.number in done else None
    out["README.md"] = card(found, origin, facts, set(files) | set(out), known).encode()
    hashes = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted({**files, **out}.items())
    }
    out["provenance.json"] = _json({**origin, "files": hashes})
    return out


def preprocessing(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Describe how to convert an image to the model's input, and the meaning of its outputs."""
    mode = str(facts.get("resize", "crop"))
    first = facts.get("decoded_size")
    again = "" if first is None else "; then to image_size, by bilinear interpolation of pixels / 255 with antialiasing"
    return {
        "image_size": facts["image_size"],
        **({} if first is None else {"decoded_size": first}),
        "channels": facts["channels"],
        "mode": "L" if facts["channels"] == 1 else "RGB",
        "decode": "upright by its EXIF orientation, transparent parts on white, grey of 16 bits divided by 257",
        "resize_mode": mode,
        "resize": f"{_RESIZE[mode].format(size='image_size' if first is None else 'decoded_size')} by bicubic "
        f"interpolation with antialiasing; an image of that size is taken as it is{again}",
        **({"padding": PADDING} if mode == "letterbox" else {}),
        "scale": "pixels / 255, then (pixels - mean) / std per channel",
        "mean": list(facts["mean"]),
        "std": list(facts["std"]),
        "layout": "batch, channels, height, width; float32",
        **_outputs(facts),
        "classes": list(facts["classes"]),
    }


def _outputs(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the meaning of the outputs, with thresholds if an image has any number of labels."""
    if facts.get("task") != MULTILABEL:
        return {"task": MULTICLASS, "output": "logits, one per class; softmax gives probabilities"}
    return {
        "task": MULTILABEL,
        "output": "logits, one per label; the sigmoid of each gives the probability that the label is present",
        "decision": "a label is present if its probability is above its threshold",
        "thresholds": [float(one) for one in facts["thresholds"]],
        "thresholds_chosen": f"each so that the F1 score of its label is highest on {facts['thresholds_on']}",
    }


def provenance(
    found: Exported, *, root: Path, config: StudyConfig, trial: TrialRecord, data: ImageData, initial: Any = None
) -> dict[str, Any]:
    """Return the origin of the student: data, teacher, study, trial, seeds, versions, and the checks of its files.

    ``initial`` states source and licence of the weights that its training started from; ``None`` for random ones.
    """
    spec = config.data
    assert spec is not None
    return {
        "made_by": "autodistill export",
        "study": config.name,
        "task": config.task,
        "trial": trial.number,
        "variant": found.variant,
        "student": dict(trial.student),
        "distillation": dict(trial.distillation),
        "train": dict(trial.train),
        "weights": found.source.to_json(),
        "initial_weights": initial,
        "seed": found.source.seed,
        "epochs": trial.epochs,
        "search_values": dict(trial.values),
        "data": {
            "source": _named(spec.source),
            "fingerprint": data.fingerprint,
            "training_images": len(data.train) + (len(data.val) if found.source.trained_on != "train" else 0),
            "validation_images": len(data.val),
            **({} if data.unlabelled is None else {"unlabelled_images": len(data.unlabelled)}),
            "val_fraction": spec.val_fraction,
            "split_seed": spec.seed,
        },
        "teacher": {"source": _named(config.teacher.source), **_teacher(root, config, data)},
        "study_seed": config.seed,
        "versions": _versions(),
        "checks": {
            "images": found.images,
            "accuracy_of_the_network": found.accuracy,
            "files": [one.to_json() for one in found.checked],
        },
    }


def _teacher(root: Path, config: StudyConfig, data: ImageData) -> dict[str, Any]:
    """Return the fingerprint of the teacher, or a remark if it cannot be loaded any more."""
    from dataclasses import replace

    from autodistill.training.teachers import load as teachers

    spec = config.teacher
    if spec.source == "auto":
        spec = replace(spec, source=str(root / "teacher"), options={})
    try:
        return {"fingerprint": teachers.load_teacher(spec, data, "cpu").fingerprint}
    except (AutodistillError, OSError):  # moved or deleted; the student does not need it
        return {"fingerprint": None, "remark": "the teacher is not where the study found it"}


def _named(source: str) -> str:
    return Path(source).name if "/" in source else source


def _named_weights(source: str) -> str:
    return source if source.startswith("hf-hub:") else _named(source.removeprefix("local-dir:"))


def _default_model(text: str, found: Exported) -> str:
    """Set the default model of ``predict.py`` to the most precise exported ONNX file."""
    order = ("onnx", "onnx-fp16", "onnx-int8")
    have = {one.format: one.file for one in found.checked if one.state == "ok"}
    file = next(have[name] for name in order if name in have)
    return text.replace("model.onnx", file) if file != "model.onnx" else text


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if "autodistill-search" not in found:
        from autodistill import __version__

        found["autodistill-search"] = __version__
    return found


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, default=list) + "\n").encode()
