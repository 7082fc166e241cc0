"""Convolutional families for any image size: residual, dense and patch-stem networks whose width and depth vary freely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from autodistill.training.families.schema import REDUCTION, Parameter, Shape, depth, family, width
from autodistill.training.families.timm_models import create, doubling, fitted


@family("resnet", width(16, 2, 128), depth(1, 1, 6), REDUCTION, kind="convolutional")
def resnet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """ResNet of basic blocks, four stages that double in width (arXiv 1512.03385)."""
    w, d = params["width"], params["depth"]
    model = create("resnet18", shape, channels=doubling(w), layers=(d,) * 4, stem_width=w)
    return fitted(model, params, shape)


_STAGES = Parameter("stages", 3, "depth", 2, 4)


@family("resnetv2", width(16, 4, 128), depth(1, 1, 6), _STAGES, REDUCTION, kind="convolutional")
def resnetv2(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """Pre-activation ResNet of two to four stages (arXiv 1603.05027); three stages are the CIFAR form."""
    w, stages = params["width"], params["stages"]
    model = create("resnetv2_18", shape, channels=doubling(w, stages), layers=(params["depth"],) * stages, stem_chs=w)
    return fitted(model, params, shape)


_KERNEL = Parameter("kernel", 7, "block", choices=(3, 5, 7))
_GRN = Parameter("grn", False, "block", choices=(False, True))


@family("convnext", width(16, 4, 96), depth(1, 1, 6), _KERNEL, _GRN, REDUCTION, kind="convolutional")
def convnext(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """ConvNeXt (arXiv 2201.03545); with ``grn`` the global response normalization of V2 (arXiv 2301.00808)."""
    w, d = params["width"], params["depth"]
    extra = {"use_grn": True, "ls_init_value": None} if params["grn"] else {}
    model = create(
        "convnext_atto",
        shape,
        dims=doubling(w),
        depths=(d, d, 2 * d, d),
        kernel_sizes=params["kernel"],
        **extra,
    )
    return fitted(model, params, shape)
