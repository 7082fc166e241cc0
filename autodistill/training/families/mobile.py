"""Mobile families: inverted residuals of free width and depth, and timm's named variants of published networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import nn

from autodistill.errors import UsageError
from autodistill.training.families.schema import REDUCTION, Parameter, Shape, depth, family, variant, width
from autodistill.training.families.timm_models import create, doubling, fitted

_EXPAND = Parameter("expand", 4, "block", 1, 6)
_KERNEL = Parameter("kernel", 3, "block", choices=(3, 5, 7))
_SE = Parameter("squeeze", False, "block", choices=(False, True))


@family("mbconv", width(16, 4, 64), depth(1, 1, 4), _EXPAND, _KERNEL, _SE, REDUCTION, kind="convolutional")
def mbconv(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """Inverted residuals of EfficientNet and MnasNet (arXiv 1905.11946) of free width, depth, kernel, expansion."""
    if shape.pretrained:
        raise UsageError("family mbconv has no pretrained weights; take a family of named variants.")
    w, d = params["width"], params["depth"]
    squeeze = "_se0.25" if params["squeeze"] else ""
    block = f"k{params['kernel']}_e{params['expand']}"
    definition = [["ds_r1_k3_s1_c" + str(w)]]
    definition += [[f"ir_r{d}_{block}_s2_c{channels}{squeeze}"] for channels in doubling(w)[1:]]
    definition += [[f"ir_r{d}_{block}_s2_c{8 * w}{squeeze}"]]
    model = EfficientNet(
        block_args=decode_arch_def(definition), num_classes=shape.num_classes, in_chans=shape.channels,
        stem_size=w, fix_stem=True, num_features=16 * w, act_layer=nn.SiLU, round_chs_fn=_as_is,
    )  # fmt: skip
    return fitted(model, params, shape)


def _as_is(channels: float, **_unused: Any) -> int:
    """Channels as written: timm would round them to multiples of 8, which hides small widths."""
    return int(channels)


_V3 = variant("mobilenetv3_small_050", "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100",
              "mobilenetv3_large_075", "mobilenetv3_large_100")  # fmt: skip


@family("mobilenetv3", _V3, REDUCTION, kind="convolutional", pretrained=True)
def mobilenetv3(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """MobileNetV3 (arXiv 1905.02244), timm's named variants."""
    return fitted(create(params["variant"], shape), params, shape)


_V2 = variant("mobilenetv2_035", "mobilenetv2_035", "mobilenetv2_050", "mobilenetv2_075", "mobilenetv2_100",
              "mobilenetv2_140")  # fmt: skip


@family("mobilenetv2", _V2, REDUCTION, kind="convolutional", pretrained=True)
def mobilenetv2(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """MobileNetV2 (arXiv 1801.04381), timm's named variants."""
    return fitted(create(params["variant"], shape), params, shape)


_V4 = variant("mobilenetv4_conv_small_035", "mobilenetv4_conv_small_035", "mobilenetv4_conv_small_050",
              "mobilenetv4_conv_small", "mobilenetv4_conv_medium")  # fmt: skip


@family("mobilenetv4", _V4, REDUCTION, kind="convolutional", pretrained=True)
def mobilenetv4(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """MobileNetV4 of convolutions (arXiv 2404.10518), timm's named variants."""
    return fitted(create(params["variant"], shape), params, shape)


_LCNET = variant("lcnet_035", "lcnet_035", "lcnet_050", "lcnet_075", "lcnet_100", "lcnet_150")


@family("lcnet", _LCNET, REDUCTION, kind="convolutional", pretrained=True)
def lcnet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """PP-LCNet (arXiv 2109.15099), made for CPUs; timm's named variants."""
    return fitted(create(params["variant"], shape), params, shape)


_EFFICIENT = variant("tinynet_e", "tinynet_e", "tinynet_d", "tinynet_c", "tinynet_b", "efficientnet_lite0",
                     "efficientnet_b0", "tinynet_a")  # fmt: skip


@family("efficientnet", _EFFICIENT, REDUCTION, kind="convolutional", pretrained=True)
def efficientnet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """EfficientNet (arXiv 1905.11946) and TinyNet (arXiv 2010.14819), timm's named variants."""
    return fitted(create(params["variant"], shape), params, shape)


_GHOST = variant("ghostnet_050", "ghostnet_050", "ghostnet_100", "ghostnet_130")


@family("ghostnet", _GHOST, REDUCTION, kind="convolutional", pretrained=True)
def ghostnet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """GhostNet (arXiv 1911.11907), timm's named variants."""
    return fitted(create(params["variant"], shape), params, shape)


@family("rexnet", width(8, 4, 48), depth(1, 1, 3), REDUCTION, kind="convolutional")
def rexnet(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """ReXNet (arXiv 2007.00992): channels grow a little in every block, from ``width`` to 11 times that."""
    w = params["width"]
    model = create(
        "rexnet_100", shape, width_mult=w / 16, depth_mult=0.5 * params["depth"], initial_chs=8, final_chs=180,
        drop_rate=0.0,
    )  # fmt: skip
    return fitted(model, params, shape)
