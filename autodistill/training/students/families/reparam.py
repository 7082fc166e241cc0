"""Families that train with parallel branches, which are fused for deployment; costs are those of the fused form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from torch import nn

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

_WIDTH = widths(16, 8, 16, 24, 32, 48, 64)  # timm rounds these networks' channels to multiples of 8


@family("repvgg", _WIDTH, depth(1, 1, 6), REDUCTION, kind="convolutional", smallest=28)
def repvgg(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """RepVGG: plain 3 x 3 convolutions once deployed (arXiv 2101.03697)."""
    w, d = params["width"], params["depth"]
    blocks = tuple(
        ByoBlockCfg(type="rep", d=count, c=channels, s=2, gs=0)
        for count, channels in zip((d, d, 2 * d, d), doubling(w), strict=True)
    )
    return fitted(_network(ByoModelCfg(blocks=blocks, stem_type="rep", stem_chs=w), shape), params, shape)


_BRANCHES = FamilyParameter("branches", 1, "block", 1, 4)


@family("mobileone", _WIDTH, depth(1, 1, 6), _BRANCHES, REDUCTION, kind="convolutional", smallest=28)
def mobileone(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """MobileOne: depthwise and pointwise convolutions with ``branches`` copies in training (arXiv 2206.04040)."""
    w, d = params["width"], params["depth"]
    copies = {"num_conv_branches": params["branches"]}
    stages, before = [], w
    for count, channels in zip((d, d, 2 * d, d), doubling(w), strict=True):
        stage: list[ByoBlockCfg] = []
        for block in range(count):
            stage += [
                ByoBlockCfg(type="one", d=1, c=before, s=1 if block else 2, gs=1, block_kwargs=copies),
                ByoBlockCfg(type="one", d=1, c=channels, s=1, gs=0, block_kwargs={"kernel_size": 1, **copies}),
            ]
            before = channels
        stages.append(tuple(stage))
    return fitted(_network(ByoModelCfg(blocks=tuple(stages), stem_type="one", stem_chs=w), shape), params, shape)


@family("repvit", width(16, 8, 64), depth(1, 1, 6), REDUCTION, kind="convolutional", smallest=28)
def repvit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """RepViT: a mobile network laid out like a light transformer (arXiv 2307.09283)."""
    w, d = params["width"], params["depth"]
    model = create("repvit_m0_9", shape, embed_dim=doubling(w), depth=(d, d, 2 * d, d), distillation=False)
    return fitted(model, params, shape)


def _network(config: ByoModelCfg, shape: Shape) -> nn.Module:
    network: nn.Module = ByobNet(config, num_classes=shape.num_classes, in_chans=shape.channels)
    return network
