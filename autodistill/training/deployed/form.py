"""The deployed form of a network: branches fused, BatchNorm folded, in eval mode, parameters frozen.

Sizes, MACs and latencies are those of this form; in training, MobileOne-S0 has four times its deployed parameters.
Folding follows the tensors of a forward pass instead of the order of modules. A BatchNorm is folded only if nothing
else reads the output of the convolution.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.models import reparameterize_model
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.overrides import TorchFunctionMode


def deploy(model: nn.Module, *, image_size: int, channels: int) -> nn.Module:
    """Return a frozen copy of ``model`` in its deployed form; the model itself is not changed.

    Args:
        model: a trained or untrained student, which maps ``(n, channels, image_size, image_size)`` to logits.
        image_size: pixels per side of the input.
        channels: channels of the input.

    Returns:
        A network with the same outputs up to rounding.
    """
    return _deployed(copy.deepcopy(model), image_size, channels)


def as_if_trained(model: nn.Module) -> nn.Module:
    """Make all parameters and statistics of an untrained network distinct, in place; return the network.

    The ONNX exporter writes equal tensors only once. An untrained network has many of them (biases of zero, scales of
    one), so its file would be smaller than that of the trained network. Tensors shared by layers stay shared.
    """
    generator = torch.Generator().manual_seed(0)
    statistics = [one for name, one in model.named_buffers() if name.endswith(("running_mean", "running_var"))]
    with torch.no_grad():
        for one in (*model.parameters(), *statistics):
            one.add_(1e-3 * torch.rand(one.shape, generator=generator).to(one))
    return model


def skeleton(model: nn.Module, *, image_size: int, channels: int) -> nn.Module:
    """Return the deployed form of ``model`` with meta tensors (shapes without values), for counting costs.

    The foldable layers are found with real values: a student processes one image in a few milliseconds, whereas a pass
    of meta tensors, which torch computes in Python, takes half a second.
    """
    if any(one.is_meta for one in model.parameters()):  # the model has no values
        with torch.device("meta"):
            return deploy(model, image_size=image_size, channels=channels)
    deployed = deploy(model, image_size=image_size, channels=channels)
    memo: dict[int, Any] = {}
    for one in deployed.parameters():
        memo[id(one)] = nn.Parameter(torch.empty_like(one, device="meta"), requires_grad=False)
    for buffer in deployed.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(deployed, memo).to("meta")


def _deployed(model: nn.Module, image_size: int, channels: int) -> nn.Module:
    model = reparameterize_model(model.eval(), inplace=True).requires_grad_(False)
    with torch.no_grad():
        _fold(model, image_size, channels)
    return model.eval().requires_grad_(False)


def _fold(model: nn.Module, image_size: int, channels: int) -> None:
    """Fold every BatchNorm that directly and solely follows a convolution or linear layer."""
    for layer, norm in _pairs(model, image_size, channels):
        before, after = model.get_submodule(layer), model.get_submodule(norm)
        if isinstance(before, nn.Linear):
            fused: nn.Module = fuse_linear_bn_eval(before, after)  # type: ignore[arg-type]
        else:
            fused = fuse_conv_bn_eval(before, after)  # type: ignore[type-var,arg-type]
        _replace(model, layer, fused)
        _replace(model, norm, after.act if isinstance(after, BatchNormAct2d) else nn.Identity())


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


_FOLDED = (nn.Conv2d, Conv2dSame, nn.Linear)


class _Reads(TorchFunctionMode):
    """Function mode that counts how many torch functions read each tensor whose id is in ``counts``."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[int, int] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if _has_tensor(out):  # a function that returns no tensor only reads a shape or another attribute
            for one in _tensors((args, kwargs or {})):
                if id(one) in self.counts:
                    self.counts[id(one)] += 1
        return out


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [one for item in value.values() for one in _tensors(item)]
    if isinstance(value, list | tuple):
        return [one for item in value for one in _tensors(item)]
    return []


def _has_tensor(value: Any) -> bool:
    return bool(_tensors(value))


def _pairs(model: nn.Module, image_size: int, channels: int) -> list[tuple[str, str]]:
    """Return the names of (layer, BatchNorm) where only the norm reads the layer's output and both are called once."""
    made: dict[int, tuple[str, torch.Tensor]] = {}
    calls: dict[str, int] = {}
    found: list[tuple[str, str, int]] = []
    reads = _Reads()
    hooks = []

    def after_layer(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            made[id(output)] = (name, output)  # keeps the tensor alive, so that its id is not reused
            reads.counts[id(output)] = 0

        return hook

    def before_norm(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            calls[name] = calls.get(name, 0) + 1
            source = made.get(id(inputs[0]))
            if source is not None:
                found.append((source[0], name, id(inputs[0])))

        return hook

    for name, module in model.named_modules():
        if type(module) in _FOLDED:
            hooks.append(module.register_forward_hook(after_layer(name)))
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(before_norm(name)))
    device = next(model.parameters()).device
    try:
        with reads:
            model(torch.zeros(1, channels, image_size, image_size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (layer, norm)
        for layer, norm, read in found
        if reads.counts[read] == 1 and calls[layer] == 1 and calls[norm] == 1
    ]
