"""Families that train with several branches and deploy with one: their costs are those of the fused form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from autodistill.training.families.schema import REDUCTION, Parameter, Shape, depth, family, variant, width
from autodistill.training.families.timm_models import create, doubling, fitted


@family("repvit", width(16, 4, 96), depth(1, 1, 6), REDUCTION, kind="convolutional")
def repvit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """RepViT (arXiv 2307.09283): a mobile network arranged like a vision transformer."""
    w, d = params["width"], params["depth"]
    model = create("repvit_m0_9", shape, embed_dim=doubling(w), depth=(d, d, 2 * d, d), distillation=False)
    return fitted(model, params, shape)


_ONE = variant("mobileone_s0", "mobileone_s0", "mobileone_s1", "mobileone_s2")


@family("mobileone", _ONE, REDUCTION, kind="convolutional", pretrained=True)
def mobileone(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """MobileOne (arXiv 2206.04040), timm's named variants."""
    return fitted(create(params["variant"], shape), params, shape)


_MULTIPLIER = Parameter("multiplier", 0.25, "width", choices=(0.125, 0.25, 0.5, 0.75, 1.0))


@family("repvgg", _MULTIPLIER, REDUCTION, kind="convolutional")
def repvgg(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """RepVGG-A0 (arXiv 2101.03697) with all channels multiplied: plain 3 x 3 convolutions once fused."""
    factor = params["multiplier"]
    model = create("repvgg_a0", shape, width_factor=factor, stem_chs=round(48 * factor))
    return fitted(model, params, shape)


@family("fastvit", width(16, 8, 96), depth(1, 1, 6), REDUCTION, kind="hybrid")
def fastvit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """FastViT (arXiv 2303.14189): convolutional token mixers, fused; no attention in the small ones."""
    w, d = params["width"], params["depth"]
    model = create("fastvit_t8", shape, embed_dims=doubling(w), layers=(d, d, 2 * d, d))
    return fitted(model, params, shape)
