"""Transformer families: patches in, attention throughout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from autodistill.errors import InfeasibleError
from autodistill.training.families.schema import Parameter, Shape, depth, family, widths
from autodistill.training.families.timm_models import create

_PATCH = Parameter("patch", "auto", "patch", choices=("auto", 16, 14, 8, 7, 4, 2, 1))
_MLP = Parameter("mlp_ratio", 2, "block", 1, 4)


@family(
    "vit",
    widths(64, 16, 32, 48, 64, 96, 128, 192, 256, 384),
    depth(4, 1, 12),
    _MLP,
    _PATCH,
    kind="transformer",
)
def vit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """Vision transformer (arXiv 2010.11929), mean-pooled, heads of 32 (16 below width 64)."""
    w = params["width"]
    return create(
        "vit_tiny_patch16_224", shape, img_size=shape.image_size, patch_size=patch_size(params["patch"], shape),
        embed_dim=w, depth=params["depth"], num_heads=w // (16 if w < 64 else 32), mlp_ratio=params["mlp_ratio"],
        global_pool="avg", class_token=False,
    )  # fmt: skip


def patch_size(asked: int | str, shape: Shape) -> int:
    """The patch side in pixels; ``auto`` gives the fewest patches per side that are 7 or more (4 below 14 px).

    Raises:
        InfeasibleError: the patch does not divide the image, or leaves fewer than 2 x 2 patches.
    """
    side = shape.image_size
    divisors = [size for size in range(1, side // 2 + 1) if side % size == 0]
    if asked == "auto":
        return max(size for size in divisors if side // size >= (7 if side >= 14 else 4))
    if asked not in divisors:
        raise InfeasibleError(f"patch {asked} does not divide {side} px into 2 x 2 or more; use auto or {divisors}.")
    return int(asked)
