"""Prunes a trained network: single weights (unstructured), or whole channels with everything that depends on them.

Single weights are pruned with ``torch.nn.utils.prune``: the smallest weights of all filters and matrices become zero.
The network keeps its shape, so its file only shrinks when it is compressed, and few runtimes become faster. Whole
channels are pruned with ``torch_pruning`` (DepGraph, arXiv 2301.12900): the network becomes smaller on every runtime.
"""

from __future__ import annotations

import copy
import warnings

import torch
from timm.models import reparameterize_model
from torch import Tensor, nn

from autodistill.core.errors import InfeasibleError, ResourceError, UsageError, first_line

Masks = dict[str, Tensor]
"""Parameter name to a tensor of the parameter's shape: 1 for weights that are kept, 0 for pruned ones."""

_LAYERS = (nn.Conv2d, nn.Linear)


def prune_weights(model: nn.Module, ratio: float) -> tuple[nn.Module, Masks]:
    """Return a copy of ``model`` with the smallest weights of its filters and matrices set to zero.

    Args:
        model: the network.
        ratio: share of these weights to prune, chosen over all layers together by absolute value.

    Returns:
        The copy, and the masks of the weights that are kept.

    Raises:
        UsageError: The ratio is not between 0 and 1.
    """
    from torch.nn.utils import prune

    _check(ratio)
    out = copy.deepcopy(model)
    named = [(name, layer) for name, layer in out.named_modules() if isinstance(layer, _LAYERS)]
    targets = [(layer, "weight") for _, layer in named]
    prune.global_unstructured(targets, pruning_method=prune.L1Unstructured, amount=ratio)
    masks: Masks = {}
    for name, layer in named:
        masks[f"{name}.weight" if name else "weight"] = layer.weight_mask.detach().clone()  # type: ignore[operator]
        prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
    return out, masks


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set the pruned weights to zero again, after an optimizer step changed them."""
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        parameters[name].mul_(mask)


def prune_channels(model: nn.Module, ratio: float, *, image_size: int, channels: int) -> nn.Module:
    """Return a copy of ``model`` with about the share ``ratio`` of the channels of every layer removed.

    The classifier keeps its outputs. In networks with attention, only hidden units of the MLP blocks are removed,
    because the network's code fixes how heads and embedding depend on each other. Networks with branches that are fused
    for deployment (such as mobileone) are fused first, and the copy stays fused.

    Args:
        model: the network.
        ratio: share of the channels to remove.
        image_size: pixels per side of the input.
        channels: channels of the input.

    Raises:
        UsageError: The ratio is not between 0 and 1.
        InfeasibleError: No channels can be removed, or the network fails or gives wrong logits without them.
        ResourceError: torch_pruning is not installed.
    """
    _check(ratio)
    try:
        import torch_pruning
    except ImportError:
        raise ResourceError("structured pruning needs the package torch-pruning: pip install torch-pruning.") from None
    # Unfused branches store their own numbers of channels, so a later fusion would restore the old number.
    out: nn.Module = reparameterize_model(copy.deepcopy(model).eval(), inplace=True)
    images = torch.rand(2, channels, image_size, image_size, generator=torch.Generator().manual_seed(0))
    before = sum(one.numel() for one in out.parameters())
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            with torch.no_grad():
                classes = out(images).shape[1]
            pruner = torch_pruning.pruner.BasePruner(
                out,
                images,
                torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=ratio,
                ignored_layers=_kept(out, classes),
            )
            pruner.step()
            given = out(images)
    except Exception as error:  # tracing runs the code of any timm network and may raise anything
        raise InfeasibleError(f"its channels cannot be removed: {first_line(error)}") from error
    if given.shape != (2, classes) or not bool(torch.isfinite(given).all()):
        raise InfeasibleError(f"without its channels it gives logits {tuple(given.shape)}, not (2, {classes})")
    if sum(one.numel() for one in out.parameters()) >= before:
        raise InfeasibleError("none of its channels can be removed by itself")
    return out


def _kept(model: nn.Module, classes: int) -> list[nn.Module]:
    """Return the layers whose outputs are kept: the classifier, or with attention all but the MLPs' first layers."""
    attention = any(isinstance(getattr(module, "qkv", None), nn.Module) for module in model.modules())
    named: list[tuple[str, nn.Module]] = [
        (name, layer) for name, layer in model.named_modules() if isinstance(layer, _LAYERS)
    ]
    if attention:
        return [layer for name, layer in named if not name.endswith("mlp.fc1")]
    found: list[nn.Module] = [
        layer for _, layer in named if isinstance(layer, nn.Linear) and layer.out_features == classes
    ]
    return found[-1:] or [named[-1][1]]


def _check(ratio: float) -> None:
    if not 0 < ratio < 1:
        raise UsageError(f"a pruning ratio is {ratio:g}; allowed: between 0 and 1, both excluded.")
