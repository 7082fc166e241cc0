"""Hybrid families: convolutions on large maps, attention of linear cost on small ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from autodistill.training.families.schema import REDUCTION, Shape, depth, family, width, widths
from autodistill.training.families.timm_models import create, doubling, fitted


@family("efficientvit", width(8, 4, 32), depth(1, 1, 4), REDUCTION, kind="hybrid", smallest=28)
def efficientvit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """EfficientViT of MIT: linear attention over several scales (arXiv 2205.14756); ``width`` is the stem's."""
    w, d = params["width"], params["depth"]
    model = create(
        "efficientvit_b0", shape, widths=doubling(w, 5), depths=(1, d, d, d, d), head_widths=(32 * w, 32 * w)
    )  # fmt: skip
    return fitted(model, params, shape)


@family("edgenext", widths(16, 8, 16, 24, 32, 48, 64), depth(1, 1, 4), REDUCTION, kind="hybrid", smallest=28)
def edgenext(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """EdgeNeXt: split depthwise convolutions, and attention across channels (arXiv 2206.10589)."""
    w, d = params["width"], params["depth"]
    model = create("edgenext_xx_small", shape, dims=doubling(w), depths=(d, d, 2 * d, d))
    return fitted(model, params, shape)
