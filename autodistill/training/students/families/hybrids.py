"""Hybrid families: convolutions on large feature maps, attention of linear cost on small ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from autodistill.training.students.families.reduction import reduce_to
from autodistill.training.students.families.schema import (
    REDUCTION,
    FamilyParameter,
    Shape,
    depth,
    family,
    width,
    widths,
)
from autodistill.training.students.families.timm_models import create, doubling, fitted


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


@family("fastvit", width(16, 8, 96), depth(1, 1, 4), REDUCTION, kind="hybrid", smallest=28)
def fastvit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """FastViT: token mixers that fuse into one large-kernel convolution (arXiv 2303.14189)."""
    w, d = params["width"], params["depth"]
    model = create("fastvit_t8", shape, embed_dims=doubling(w), layers=(d, d, 2 * d, d))
    return fitted(model, params, shape)


@family("swiftformer", width(16, 8, 64), depth(1, 1, 4), REDUCTION, kind="hybrid", smallest=28)
def swiftformer(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """SwiftFormer: convolutions, and additive attention once per stage (arXiv 2303.15446)."""
    w, d = params["width"], params["depth"]
    model = create("swiftformer_xs", shape, embed_dims=doubling(w), layers=(d, d, 2 * d, d))
    return fitted(model, params, shape)


_MULTIPLIER = FamilyParameter("multiplier", 0.25, "width", choices=(0.125, 0.25, 0.375, 0.5, 0.75, 1.0))


@family("mobilevit", _MULTIPLIER, REDUCTION, kind="hybrid", smallest=28)
def mobilevit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """MobileViT V2 with all channels multiplied: separable attention in the last three stages (arXiv 2206.02680)."""
    return fitted(create("mobilevitv2_100", shape, width_factor=params["multiplier"]), params, shape)


_LEVIT_STRIDE = 16  # of its stem


@family("levit", widths(64, 32, 48, 64, 96, 128), depth(2, 1, 4), kind="hybrid", smallest=28, largest=256)
def levit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """LeViT: a convolutional stem, then attention at three shrinking resolutions (arXiv 2104.01136).

    For small images the network is built for a larger image size and strides are removed from its stem, so that
    attention starts on a map of at least 7 pixels per side.
    """
    w, d = params["width"], params["depth"]
    stride = _LEVIT_STRIDE
    while stride > 1 and shape.image_size / stride < 7:
        stride //= 2
    side = shape.image_size * _LEVIT_STRIDE // stride
    model = create(
        "levit_128s", shape, img_size=side, embed_dim=(w, 3 * w // 2, 2 * w), depth=(d, d, d), key_dim=16,
        num_heads=(w // 16, 3 * w // 32, w // 8),
    )  # fmt: skip
    return reduce_to(model, stride, image_size=shape.image_size, channels=shape.channels, probe=side)
