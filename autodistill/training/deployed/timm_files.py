"""Students as folders that ``timm.create_model('local-dir:OUT', pretrained=True)`` reads: weights and ``config.json``.

A student whose network timm can make from a name and keywords gets a configuration of timm's own. One whose family
changes the network afterwards (fewer strides for small images, a narrower stem) cannot be told in keywords: timm would
load its weights without complaint and compute something else. Its configuration names the architecture
``autodistill_student``, which timm knows once this module is imported, and refuses by name before that.

Which of the two it is, is not decided by rule but found out: the folder is read back and compared bit by bit.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_pretrained, register_model
from torch import nn

from autodistill.core.errors import StoreError
from autodistill.training.runtime.durable_files import tensor_bytes
from autodistill.training.students import build as students
from autodistill.training.students.families.timm_models import asked_of_timm

__all__ = ["ARCHITECTURE", "CONFIG", "WEIGHTS", "needs_autodistill", "read_timm", "timm_files"]

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
ARCHITECTURE = "autodistill_student"
_PROBE = 4  # images that a folder is compared on
_CROP_MODES = {
    "crop": "center",
    "squash": "squash",
    "letterbox": "border",
}  # timm pads with the mean, not with grey 114


@register_model  # type: ignore[untyped-decorator]
def autodistill_student(
    pretrained: bool = False, pretrained_cfg: Any = None, *, student: Mapping[str, Any], img_size: int, **asked: Any
) -> nn.Module:
    """A student of one of our families, as timm's ``create_model`` asks for it.

    Args:
        pretrained: load the weights beside the configuration.
        pretrained_cfg: timm's; says where they are.
        student: family and parameters.
        img_size: pixels per side of its input.
        asked: ``num_classes`` and ``in_chans``; whatever else timm hands over does not change the network.
    """
    classes, channels = int(asked["num_classes"]), int(asked["in_chans"])
    model = students.build_student(student, image_size=img_size, channels=channels, num_classes=classes)
    if pretrained:
        facts = pretrained_cfg if isinstance(pretrained_cfg, Mapping) else pretrained_cfg.to_dict()
        load_pretrained(model, pretrained_cfg=dict(facts), num_classes=classes, in_chans=channels)
    return model


def timm_files(model: nn.Module, facts: Mapping[str, Any]) -> tuple[dict[str, bytes], bool]:
    """The two files of a student.

    Args:
        model: in eval mode.
        facts: of the student (``trial_files.student_facts``): architecture, shape, classes, mean and std.

    Returns:
        Name to content, and whether timm alone can read them.

    Raises:
        StoreError: they do not give the network back, bit by bit.
    """
    weights = tensor_bytes(model.state_dict())
    asked = asked_of_timm(model)
    if asked is not None:
        files = {WEIGHTS: weights, CONFIG: _json(_config(model, facts, asked[0], asked[1]))}
        if _same(model, files, facts):
            return files, True
    own = {"student": dict(facts["architecture"]), "img_size": facts["image_size"]}
    files = {WEIGHTS: weights, CONFIG: _json(_config(model, facts, ARCHITECTURE, own))}
    if not _same(model, files, facts):
        raise StoreError(f"{students.describe(facts['architecture'])} is not the same after writing and reading it.")
    return files, False


def read_timm(folder: str | Path) -> nn.Module:
    """The network in a folder, in eval mode, on the CPU, by ``timm.create_model('local-dir:…')``."""
    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return model.eval()


def needs_autodistill(folder: str | Path) -> bool:
    """Whether timm can read a folder only after ``import autodistill.training.deployed.timm_files``."""
    config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    return bool(config.get("architecture") == ARCHITECTURE)


def _config(model: nn.Module, facts: Mapping[str, Any], name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """``config.json`` as timm's hub writes it."""
    known = getattr(model, "pretrained_cfg", None) or {}
    side, channels, classes = facts["image_size"], facts["channels"], len(facts["classes"])
    layers = {key: known[key] for key in ("first_conv", "classifier", "fixed_input_size") if known.get(key)}
    return {
        "architecture": name,
        "num_classes": classes,
        "num_features": int(getattr(model, "num_features", 0)),
        "label_names": list(facts["classes"]),
        "model_args": {**keywords, "in_chans": channels, "num_classes": classes},
        "pretrained_cfg": {
            "num_classes": classes,
            "input_size": [channels, side, side],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": _CROP_MODES[facts.get("resize", "crop")],
            "mean": list(facts["mean"]),
            "std": list(facts["std"]),
            **layers,
        },
    }


@torch.no_grad()
def _same(model: nn.Module, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> bool:
    """Whether the folder gives equal bits on random images."""
    shape = (_PROBE, facts["channels"], facts["image_size"], facts["image_size"])
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(prefix="autodistill-timm-") as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        try:
            found = read_timm(folder)(images)
        except Exception:  # keywords that timm does not take from a file, shapes that changed since
            return False
    return torch.equal(found, model(images))


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, default=list) + "\n").encode()
