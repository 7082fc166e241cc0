"""Convolutional families for any image size; width and depth vary freely in all but RegNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from autodistill.training.families.schema import REDUCTION, Parameter, Shape, depth, family, variant, width
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


@family("inception_next", width(16, 8, 96), depth(1, 1, 6), REDUCTION, kind="convolutional")
def inception_next(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """InceptionNeXt (arXiv 2303.16900): ConvNeXt whose large kernel is split into a square and two bands."""
    w, d = params["width"], params["depth"]
    model = create("inception_next_atto", shape, dims=doubling(w), depths=(d, d, 2 * d, d))
    return fitted(model, params, shape)


@family("mambaout", width(16, 4, 96), depth(1, 1, 6), REDUCTION, kind="convolutional")
def mambaout(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """MambaOut (arXiv 2405.07992): gated convolution blocks."""
    w, d = params["width"], params["depth"]
    model = create("mambaout_femto", shape, dims=doubling(w), depths=(d, d, 2 * d, d))
    return fitted(model, params, shape)


@family("fasternet", width(16, 4, 96), depth(1, 1, 6), REDUCTION, kind="convolutional")
def fasternet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """FasterNet (arXiv 2303.03667): convolves a quarter of the channels; its head is 16 times the width."""
    w, d = params["width"], params["depth"]
    model = create("fasternet_t0", shape, embed_dim=w, depths=(d, d, 2 * d, d), feature_dim=16 * w)
    return fitted(model, params, shape)


@family("starnet", width(16, 4, 48), depth(1, 1, 6), REDUCTION, kind="convolutional")
def starnet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """StarNet (arXiv 2403.19967): two branches multiplied element by element."""
    w, d = params["width"], params["depth"]
    return fitted(create("starnet_s050", shape, base_dim=w, depths=(d, d, 2 * d, d)), params, shape)


_GROWTH = Parameter("width", 12, "width", 4, 48)


@family("densenet", _GROWTH, depth(2, 1, 12), _STAGES, REDUCTION, kind="convolutional")
def densenet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """DenseNet (arXiv 1608.06993); ``width`` is the growth rate, ``depth`` the layers of a dense block."""
    blocks = (params["depth"],) * params["stages"]
    model = create("densenet121", shape, growth_rate=params["width"], block_config=blocks)
    return fitted(model, params, shape)


_REGNET = variant("regnetx_002", "regnetx_002", "regnety_002", "regnety_004", "regnetx_004", "regnety_006",
                  "regnetx_006", "regnety_008", "regnetx_008")  # fmt: skip


@family("regnet", _REGNET, REDUCTION, kind="convolutional", pretrained=True)
def regnet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """RegNet X and Y (arXiv 2003.13678), timm's named variants."""
    return fitted(create(params["variant"], shape), params, shape)
