"""Transformer families: attention in every block, on patches of the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from autodistill.core.errors import InfeasibleError
from autodistill.training.students.families.reduction import auto_reduction
from autodistill.training.students.families.schema import REDUCTION, FamilyParameter, Shape, depth, family, widths
from autodistill.training.students.families.timm_models import create, doubling, fitted

_PATCH = FamilyParameter("patch", "auto", "patch", choices=("auto", 16, 14, 8, 7, 4, 2, 1))
_MLP = FamilyParameter("mlp_ratio", 2, "block", 1, 4)


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


def patch_size(wanted: int | str, shape: Shape) -> int:
    """Return the patch side in pixels; ``auto`` gives the fewest patches per side that are 7 or more (4 below 14 px).

    Raises:
        InfeasibleError: The patch does not divide the image, or leaves fewer than 2 x 2 patches.
    """
    side = shape.image_size
    divisors = [size for size in range(1, side // 2 + 1) if side % size == 0]
    if wanted == "auto":
        return max(size for size in divisors if side // size >= (7 if side >= 14 else 4))
    if wanted not in divisors:
        raise InfeasibleError(f"patch {wanted} does not divide {side} px into 2 x 2 or more; use auto or {divisors}.")
    return int(wanted)


@family("pvt_v2", widths(16, 8, 16, 24, 32, 48, 64), depth(1, 1, 4), REDUCTION, kind="transformer", smallest=28)
def pvt_v2(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """Pyramid vision transformer V2 (arXiv 2106.13797); keys and values are pooled to about 7 a side, as at 224 px."""
    w, d = params["width"], params["depth"]
    reduction = params["reduction"]
    total = auto_reduction(shape.image_size, 32) if reduction == "auto" else int(reduction)
    sides = [shape.image_size // max(1, total >> later) for later in (3, 2, 1, 0)]
    model = create(
        "pvt_v2_b0", shape, embed_dims=doubling(w), depths=(d,) * 4, num_heads=(1, 2, 4, 8),
        sr_ratios=tuple(max(1, side // 7) for side in sides),
    )  # fmt: skip
    return fitted(model, params, shape, skip=".sr")


@family("xcit", widths(64, 32, 48, 64, 96, 128, 192), depth(4, 1, 12), REDUCTION, kind="transformer", smallest=28)
def xcit(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """XCiT: attention between channels, so that its cost is linear in the pixels (arXiv 2106.09681); heads of 16."""
    w = params["width"]
    model = create("xcit_nano_12_p16_224", shape, embed_dim=w, depth=params["depth"], num_heads=w // 16)
    return fitted(model, params, shape)


_STAGES = FamilyParameter("stages", 2, "depth", 2, 3)


@family("swin", widths(32, 16, 32, 48, 64, 96), depth(1, 1, 3), _STAGES, _MLP, kind="transformer")
def swin(params: Mapping[str, Any], shape: Shape) -> nn.Module:
    """Swin transformer: attention in shifted windows of 4 or 7, two or three stages (arXiv 2103.14030); heads of 16."""
    w, stages, side = params["width"], params["stages"], shape.image_size
    shrink = 2 ** (stages - 1)
    finals = {size: side // (size * shrink) for size in (16, 8, 7, 4, 2, 1) if side % (size * shrink) == 0}
    patch = next((size for size, final in finals.items() if final >= 4), 1)
    if finals.get(patch, 0) < 2:
        raise InfeasibleError(f"swin cannot halve a map of {side} px {stages - 1} times; choose fewer stages.")
    return create(
        "swin_tiny_patch4_window7_224", shape, img_size=side, patch_size=patch, embed_dim=w,
        depths=(2 * params["depth"],) * stages, num_heads=tuple(w // 16 * 2**i for i in range(stages)),
        window_size=7 if finals[patch] % 7 == 0 else 4, mlp_ratio=params["mlp_ratio"],
    )  # fmt: skip
