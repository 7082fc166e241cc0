"""Mobile families: inverted residuals with free width and depth, and timm's named variants of published networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import nn

from autodistill.training.students.families.schema import (
    REDUCTION,
    FamilyParameter,
    Shape,
    depth,
    family,
    variant,
    width,
)
from autodistill.training.students.families.timm_models import create, doubling, fitted

_EXPAND = FamilyParameter("expand", 4, "block", 1, 6)
_KERNEL = FamilyParameter("kernel", 3, "block", choices=(3, 5, 7))
_SE = FamilyParameter("squeeze", False, "block", choices=(False, True))


@family("mbconv", width(16, 4, 64), depth(1, 1, 4), _EXPAND, _KERNEL, _SE, REDUCTION, kind="convolutional")
def mbconv(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """Inverted residuals of EfficientNet and MnasNet (arXiv 1905.11946): free width, depth, kernel and expansion."""
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
    """Return the channels unrounded: timm would round to multiples of 8, so that small widths would become equal."""
    return int(channels)


def _named(name: str, summary: str, *variants: str) -> None:
    """Register a family of variants with fixed sizes, whose width and depth cannot be set in timm."""

    def build(params: Mapping[str, Any], shape: Shape) -> nn.Module:
        return fitted(create(params["variant"], shape), params, shape)

    build.__doc__ = summary
    family(name, variant(variants[0], *variants), REDUCTION, kind="convolutional", smallest=28, pretrained=True)(build)


_named("mobilenetv2", "MobileNetV2 (arXiv 1801.04381).",
       "mobilenetv2_035", "mobilenetv2_050", "mobilenetv2_075", "mobilenetv2_100", "mobilenetv2_140")  # fmt: skip
_named("mobilenetv3", "MobileNetV3 (arXiv 1905.02244).",
       "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100",
       "mobilenetv3_large_075", "mobilenetv3_large_100")  # fmt: skip
_named("mobilenetv4", "MobileNetV4 of convolutions alone (arXiv 2404.10518).",
       "mobilenetv4_conv_small_035", "mobilenetv4_conv_small_050", "mobilenetv4_conv_small",
       "mobilenetv4_conv_medium")  # fmt: skip
_named("lcnet", "PP-LCNet, made for the CPU (arXiv 2109.15099).",
       "lcnet_035", "lcnet_050", "lcnet_075", "lcnet_100", "lcnet_150")  # fmt: skip
_named("tinynet", "TinyNet: EfficientNet shrunk in all three directions (arXiv 2010.14819).",
       "tinynet_e", "tinynet_d", "tinynet_c", "tinynet_b", "tinynet_a")  # fmt: skip
_named("efficientnet", "EfficientNet (arXiv 1905.11946); lite has neither squeeze nor swish.",
       "efficientnet_lite0", "efficientnet_b0", "efficientnet_b1")  # fmt: skip
_named("ghostnet", "GhostNet: half of the channels are cheap copies (arXiv 1911.11907).",
       "ghostnet_050", "ghostnet_100", "ghostnet_130")  # fmt: skip
_named("regnet", "RegNet X and Y (arXiv 2003.13678).",
       "regnetx_002", "regnety_002", "regnety_004", "regnetx_004", "regnety_006", "regnety_008")  # fmt: skip
