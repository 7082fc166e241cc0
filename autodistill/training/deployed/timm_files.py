"""Writes students as folders that timm reads: weights and ``config.json``.

``timm.create_model('local-dir:OUT', pretrained=True)`` reads such a folder. If timm can build the network from a name
and keywords, the folder contains an ordinary timm configuration. If the family changed the network after timm built it
(fewer strides for small images, a narrower stem), keywords cannot describe it: timm would load the weights without an
error and compute something else. The configuration then names the architecture ``autodistill_student``. timm has this
architecture once this module is imported; before, it refuses the name.

Which configuration is needed is found by a test: the folder is read back, and the outputs are compared bit by bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_pretrained, register_model
from torch import nn

from autodistill.core.errors import StoreError
from autodistill.core.scratch import scratch_folder
from autodistill.training.runtime.durable_files import tensor_bytes
from autodistill.training.students import build as students
from autodistill.training.students.families.timm_models import timm_call
from autodistill.training.weights.folders import ARCHITECTURE, CONFIG, WEIGHTS

__all__ = ["ARCHITECTURE", "CONFIG", "WEIGHTS", "needs_autodistill", "read_timm", "timm_files"]

_PROBE = 4  # images on which the network read back is compared
_CROP_MODES = {
    "crop": "center",
    "squash": "squash",
    "letterbox": "border",
}  # not exactly the same for letterbox: timm pads with the mean, autodistill with grey 114


@register_model  # type: ignore[untyped-decorator]
def autodistill_student(
    pretrained: bool = False, pretrained_cfg: Any = None, *, student: Mapping[str, Any], img_size: int, **keywords: Any
) -> nn.Module:
    """Build a student of an autodistill family; called by timm's ``create_model``.

    Args:
        pretrained: load the weights from the folder of the configuration.
        pretrained_cfg: timm's configuration, with the location of the weights.
        student: family and parameters.
        img_size: pixels per side of the input.
        keywords: ``num_classes`` and ``in_chans``; other keywords from timm are ignored.
    """
    classes, channels = int(keywords["num_classes"]), int(keywords["in_chans"])
    model = students.build_student(student, image_size=img_size, channels=channels, num_classes=classes)
    if pretrained:
        facts = pretrained_cfg if isinstance(pretrained_cfg, Mapping) else pretrained_cfg.to_dict()
        load_pretrained(model, pretrained_cfg=dict(facts), num_classes=classes, in_chans=channels)
    return model


def timm_files(model: nn.Module, facts: Mapping[str, Any]) -> tuple[dict[str, bytes], bool]:
    """Return the two files of a student, weights and configuration.

    Args:
        model: the student, in eval mode.
        facts: facts of the student (``trial_files.student_facts``): architecture, shape, classes, mean and std.

    Returns:
        Contents by file name, and whether timm can read them without autodistill.

    Raises:
        StoreError: The network that is read back from the files does not give the same outputs, bit by bit.
    """
    weights = tensor_bytes(model.state_dict())
    call = timm_call(model)
    if call is not None:
        files = {WEIGHTS: weights, CONFIG: _json(_config(model, facts, call[0], call[1]))}
        if _same(model, files, facts):
            return files, True
    own = {"student": dict(facts["architecture"]), "img_size": facts["image_size"]}
    files = {WEIGHTS: weights, CONFIG: _json(_config(model, facts, ARCHITECTURE, own))}
    if not _same(model, files, facts):
        raise StoreError(f"{students.describe(facts['architecture'])} is not the same after writing and reading it.")
    return files, False


def read_timm(folder: str | Path) -> nn.Module:
    """Read the network in a folder by ``timm.create_model('local-dir:…')``, in eval mode, on the CPU."""
    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return model.eval()


def needs_autodistill(folder: str | Path) -> bool:
    """Return whether timm can only read a folder after ``import autodistill.training.deployed.timm_files``."""
    config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    return bool(config.get("architecture") == ARCHITECTURE)


def _config(model: nn.Module, facts: Mapping[str, Any], name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of ``config.json`` in the format of timm's hub."""
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
    """Return whether the network read back from the files gives the same bits as ``model`` on random images."""
    shape = (_PROBE, facts["channels"], facts["image_size"], facts["image_size"])
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with scratch_folder("timm") as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        try:
            found = read_timm(folder)(images)
        except Exception:  # keywords that timm does not accept from a file, or shapes that changed after building
            return False
    return torch.equal(found, model(images))


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, default=list) + "\n").encode()
