"""Published weights load into every variant that has them, at 1 and 3 channels, and exported files equal the network.

The weights are random stand-ins in the published shapes: no network is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hub_cache import lay_hub_cache

from autodistill.search.space.builtin import load_space
from autodistill.training.deployed.onnx_files import export_onnx, run_onnx
from autodistill.training.deployed.timm_files import timm_files
from autodistill.training.students import build as students
from autodistill.training.students.build import families
from autodistill.training.students.starting_weights import read_for
from autodistill.training.weights.source import resolve

CLASSES = ("cat", "dog", "owl")
NETWORKS = (
    "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100", "mobilenetv3_large_100",
    "mobilenetv4_conv_small_035", "mobilenetv4_conv_small_050", "mobilenetv4_conv_small", "mobilenetv4_conv_medium",
    "tf_efficientnet_lite0", "tf_efficientnet_lite1", "efficientnet_lite0", "ghostnet_100", "ghostnetv2_100",
    "lcnet_050", "lcnet_075", "lcnet_100", "tinynet_e", "tinynet_d", "tinynet_c", "tinynet_a",
    "regnetx_002", "regnety_002", "regnety_004", "resnet10t", "resnet14t", "resnet18", "repvit_m0_9", "repvit_m1",
    "fastvit_t8", "fastvit_t12", "edgenext_xx_small", "edgenext_x_small", "efficientvit_b0", "efficientvit_b1",
    "efficientvit_m0", "vit_tiny_patch16_224", "deit_tiny_patch16_224", "mobileone_s0", "starnet_s1", "mobilevitv2_050",
    "convnext_atto", "fasternet_t0", "mobilenetv2_050", "mobilenetv2_100",
)  # fmt: skip
"""Networks of timm from which students of photographs start."""

QUICK = ("mobilenetv3_small_050", "lcnet_050", "tinynet_e", "resnet10t", "efficientvit_m0", "edgenext_xx_small")


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every variant of a registered family that has weights, and by name the networks of the space and those above."""
    for name in families.names():
        if families.get(name).pretrained:
            found = families.get(name).parameter("variant")
            for variant in found.choices if found is not None else ():
                if timm.get_pretrained_cfg(str(variant)).has_weights:
                    yield str(variant), {"family": name, "variant": variant}
    photos = load_space("photos")["student"]["timm"]["model"]
    for name in dict.fromkeys([*photos, *NETWORKS]):
        if timm.is_model(name) and timm.get_pretrained_cfg(name).has_weights:
            yield f"timm-{name}", {"family": "timm", "model": name}


def cases() -> Iterator[Any]:
    for name, student in variants():
        for channels in (1, 3):
            for side in (96, 128, 224):
                quick = name.removeprefix("timm-") in QUICK and side == 96
                marks = [] if quick else [pytest.mark.slow]
                yield pytest.param(student, channels, side, marks=marks, id=f"{name}-{channels}-{side}")


@pytest.mark.parametrize(("student", "channels", "side"), [*cases()])
def test_weights_load_and_the_exported_files_equal_the_network(
    student: dict[str, Any], channels: int, side: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = str(student.get("variant", student.get("model")))
    lay_hub_cache(monkeypatch, tmp_path / "hf", name)
    assert resolve(name).is_here
    shape = {"image_size": side, "channels": channels, "num_classes": len(CLASSES)}
    model = students.build_student(student, **shape, weights=read_for(student, {}, CLASSES)).eval()
    images = torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(images).numpy()
    assert logits.shape == (2, len(CLASSES))
    assert np.isfinite(logits).all()
    facts = {"architecture": student, "image_size": side, "channels": channels, "classes": CLASSES}
    timm_files(model, {**facts, "mean": (0.5,) * channels, "std": (0.5,) * channels})  # compares bit by bit
    export_onnx(model, tmp_path / "m.onnx", image_size=side, channels=channels)
    np.testing.assert_allclose(run_onnx(tmp_path / "m.onnx", images.numpy()), logits, atol=2e-3, rtol=2e-3)
