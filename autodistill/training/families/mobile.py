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
    """Inverted residuals of EfficientNet and MnasNet (arXiv 1905.11946): free width, depth, kernel and expansion."""
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
