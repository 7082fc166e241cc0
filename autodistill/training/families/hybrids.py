"""Hybrid families: convolutions with attention in the later stages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from autodistill.training.families.reduction import reduce_to
from autodistill.training.families.schema import REDUCTION, Parameter, Shape, depth, family, width, widths
from autodistill.training.families.timm_models import create, doubling, fitted


@family("edgenext", width(16, 8, 96), depth(1, 1, 6), REDUCTION, kind="hybrid")
def edgenext(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """EdgeNeXt (arXiv 2206.10589): convolutions, and attention across channels at the end of each stage."""
    w, d = params["width"], params["depth"]
    heads = (math.gcd(w, 8),) * 4
    model = create("edgenext_xx_small", shape, dims=doubling(w), depths=(d, d + 1, 2 * d, d + 1), heads=heads)
    return fitted(model, params, shape)


@family("efficientvit", width(8, 4, 32), depth(1, 1, 4), REDUCTION, kind="hybrid")
def efficientvit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """EfficientViT of MIT (arXiv 2205.14756): linear attention in the two last of five stages."""
    w, d = params["width"], params["depth"]
    model = create(
        "efficientvit_b0", shape, widths=doubling(w, 5), depths=(1, d, d, d, d), head_dim=8, head_widths=(32 * w,) * 2
    )
    return fitted(model, params, shape)


@family("swiftformer", width(16, 8, 64), depth(1, 1, 4), REDUCTION, kind="hybrid")
def swiftformer(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """SwiftFormer (arXiv 2303.15446): convolutions, and additive attention once per stage."""
    w, d = params["width"], params["depth"]
    return fitted(create("swiftformer_xs", shape, embed_dims=doubling(w), layers=(d, d, 2 * d, d)), params, shape)


_MULTIPLIER = Parameter("multiplier", 0.25, "width", choices=(0.125, 0.25, 0.375, 0.5, 0.75, 1.0))


@family("mobilevit", _MULTIPLIER, REDUCTION, kind="hybrid")
def mobilevit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """MobileViT V2 (arXiv 2206.02680) with all channels multiplied: separable attention in the last three stages."""
    return fitted(create("mobilevitv2_100", shape, width_factor=params["multiplier"]), params, shape)


_STEM = 16


@family("levit", widths(64, 32, 48, 64, 96, 128), depth(2, 1, 4), kind="hybrid", largest=256)
def levit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """LeViT (arXiv 2104.01136): a convolutional stem, then attention at three shrinking resolutions.

    Its stem divides the image by 16. For small images the network is made for a larger one and the stem's
    strides are taken away, so that attention starts on a map of 7 to 14 pixels.
    """
    w, d = params["width"], params["depth"]
    stride = _STEM
    while stride > 1 and shape.image_size / stride < 7:
        stride //= 2
    side = shape.image_size * _STEM // stride
    model = create(
        "levit_128s", shape, img_size=side, embed_dim=(w, 3 * w // 2, 2 * w), depth=(d, d, d),
        num_heads=(w // 16, 3 * w // 32, w // 8), key_dim=16,
    )  # fmt: skip
    return reduce_to(model, stride, image_size=shape.image_size, channels=shape.channels, probe=side)
