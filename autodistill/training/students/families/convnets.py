"""Convolutional families with free width and depth: residual networks and networks with a patch stem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from autodistill.training.students.families.schema import REDUCTION, FamilyParameter, Shape, depth, family, width
from autodistill.training.students.families.timm_models import create, doubling, fitted

_UP_TO_FOUR = FamilyParameter("stages", 4, "depth", 2, 4)


@family("resnet", width(16, 2, 128), depth(1, 1, 6), _UP_TO_FOUR, REDUCTION, kind="convolutional")
def resnet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """ResNet of basic blocks, two to four stages that double in width (arXiv 1512.03385)."""
    w, d, stages = params["width"], params["depth"], params["stages"]
    left_out = 4 - stages  # timm always runs four stages; a stage without blocks is the identity
    channels = doubling(w, stages) + (w * 2 ** (stages - 1),) * left_out
    model = create("resnet18", shape, channels=channels, layers=(d,) * stages + (0,) * left_out)
    _narrow_stem(model, w, shape)
    return fitted(model, params, shape)


_CIFAR_STEM = 64  # pixels per side below which the stem's kernel is 3 instead of 7, as in the paper's CIFAR networks


def _narrow_stem(model: nn.Module, width: int, shape: Shape) -> None:
    """Replace the stem by one of ``width`` channels; timm's always has 64, which dominates the cost of small stages."""
    kernel = 3 if shape.image_size < _CIFAR_STEM else 7
    first = model.get_submodule("layer1.0")
    model.conv1 = nn.Conv2d(shape.channels, width, kernel, stride=2, padding=kernel // 2, bias=False)
    model.bn1 = nn.BatchNorm2d(width)
    first.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
    setattr(first, "downsample", None)  # noqa: B010 - typed as Tensor | Module
    for convolution in (model.conv1, first.conv1):
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")


_STAGES = FamilyParameter("stages", 3, "depth", 2, 4)


@family("resnetv2", width(16, 4, 128), depth(1, 1, 6), _STAGES, REDUCTION, kind="convolutional")
def resnetv2(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """Pre-activation ResNet of two to four stages (arXiv 1603.05027); three stages are the CIFAR form."""
    w, stages = params["width"], params["stages"]
    model = create("resnetv2_18", shape, channels=doubling(w, stages), layers=(params["depth"],) * stages, stem_chs=w)
    return fitted(model, params, shape)


_KERNEL = FamilyParameter("kernel", 7, "block", choices=(3, 5, 7))
_GRN = FamilyParameter("grn", False, "block", choices=(False, True))


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


_DENSE = depth(3, 1, 12)


@family("densenet", width(12, 4, 48), _DENSE, REDUCTION, kind="convolutional", smallest=28)
def densenet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """DenseNet-BC (arXiv 1608.06993); ``width`` is the growth rate, ``depth`` the layers of each of four blocks."""
    model = create("densenet121", shape, growth_rate=params["width"], block_config=(params["depth"],) * 4)
    return fitted(model, params, shape)


@family("mambaout", width(16, 8, 96), depth(1, 1, 6), _KERNEL, REDUCTION, kind="convolutional", smallest=28)
def mambaout(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """MambaOut: gated convolutional blocks, Mamba without its state space (arXiv 2405.07992)."""
    w, d = params["width"], params["depth"]
    model = create(
        "mambaout_femto", shape, dims=doubling(w), depths=(d, d, 2 * d, d), kernel_size=params["kernel"]
    )  # fmt: skip
    return fitted(model, params, shape)


@family("fasternet", width(16, 8, 96), depth(1, 1, 6), REDUCTION, kind="convolutional", smallest=28)
def fasternet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """FasterNet: convolutions on a quarter of the channels (arXiv 2303.03667); made for latency, not for MACs."""
    w, d = params["width"], params["depth"]
    model = create("fasternet_t0", shape, embed_dim=w, depths=(d, d, 2 * d, d), feature_dim=16 * w)
    return fitted(model, params, shape)


_EXPAND = FamilyParameter("expand", 3, "block", 2, 4)


@family("starnet", width(16, 4, 64), depth(1, 1, 6), _EXPAND, REDUCTION, kind="convolutional", smallest=28)
def starnet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """StarNet: depthwise blocks whose branches are multiplied (arXiv 2403.19967)."""
    w, d = params["width"], params["depth"]
    model = create("starnet_s050", shape, base_dim=w, depths=[d, d, 2 * d, d], mlp_ratio=params["expand"])
    return fitted(model, params, shape)


@family("inception_next", width(16, 8, 96), depth(1, 1, 6), REDUCTION, kind="convolutional", smallest=28)
def inception_next(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """InceptionNeXt: ConvNeXt whose large kernel is split into a square and two bands (arXiv 2303.16900)."""
    w, d = params["width"], params["depth"]
    model = create("inception_next_atto", shape, dims=doubling(w), depths=(d, d, 2 * d, d))
    return fitted(model, params, shape)
