"""Takes weights out of a trained network: single ones, or whole channels with everything that hangs on them.

Single weights by ``torch.nn.utils.prune`` (the smallest of all filters and matrices become zero): the network keeps its
shape, so its file shrinks only when it is compressed, and few runtimes are faster for it. Whole channels by
``torch_pruning`` (DepGraph, arXiv 2301.12900): the network itself becomes smaller, on every runtime.
"""

from __future__ import annotations

import copy
import warnings

import torch
from timm.models import reparameterize_model
from torch import Tensor, nn

from autodistill.core.errors import InfeasibleError, ResourceError, UsageError

Masks = dict[str, Tensor]
"""Name of a parameter to what of it is kept, 0 or 1."""

_LAYERS = (nn.Conv2d, nn.Linear)


def prune_weights(model: nn.Module, ratio: float) -> tuple[nn.Module, Masks]:
    """A copy of ``model`` with the share ``ratio`` of its filter and matrix weights, the smallest of all, set to zero.

    Returns:
        The copy, and what of its parameters is kept.

    Raises:
        UsageError: the ratio is not between 0 and 1.
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
    """Set what ``masks`` do not keep to zero again, after a step that moved it."""
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        parameters[name].mul_(mask)


def prune_channels(model: nn.Module, ratio: float, *, image_size: int, channels: int) -> nn.Module:
    """A copy of ``model`` with about the share ``ratio`` of the channels of every layer removed.

    The classifier keeps its outputs. Of networks with attention only the hidden units between two matrices are taken:
    heads and embedding hang together in ways that the network's own code fixes. Families with branches that merge for
    deployment (mobileone and its like) are merged first, and stay so.

    Raises:
        UsageError: the ratio is not between 0 and 1.
        InfeasibleError: the network's layers depend on each other in a way that cannot be cut.
        ResourceError: torch_pruning is not installed.
    """
    _check(ratio)
    try:
        import torch_pruning
    except ImportError:
        raise ResourceError("structured pruning needs the package torch-pruning: pip install torch-pruning.") from None
    # branches that merge for deployment count their channels by themselves, and would merge to the old number
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
    except Exception as error:  # graph tracing meets any code; timm has a thousand networks
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InfeasibleError(f"its channels cannot be removed: {line}") from error
    if given.shape != (2, classes) or not bool(torch.isfinite(given).all()):
        raise InfeasibleError(f"without its channels it gives logits {tuple(given.shape)}, not (2, {classes})")
    if sum(one.numel() for one in out.parameters()) >= before:
        raise InfeasibleError("none of its channels can be removed by itself")
    return out


def _kept(model: nn.Module, classes: int) -> list[nn.Module]:
    """Layers whose outputs stay: the classifier, and beside attention everything but the hidden units."""
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
        raise UsageError(f"a pruning ratio is {ratio:g}; it is a share between 0 and 1.")
