"""Adapts a convolutional network to small images by removing strides, starting with the stem.

Of 174 timm networks, 141 shrink a 32 px image to a single pixel. ``reduce_to`` finds the strided layers by one traced
forward pass and groups those that read maps of the same size (a convolution and its shortcut). It then sets the
earliest groups to stride 1 until the wanted reduction is reached. Weights keep their shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from autodistill.core.errors import InfeasibleError

MIN_MAP = 3
"""Least number of pixels per side of the final map for the reduction ``auto``."""


@dataclass(frozen=True)
class _Step:
    """Strided layers that read maps of the same size and must change together.

    Attributes:
        side: pixels per side of the maps that they read.
        factor: largest stride among the layers.
        layers: names of the layers.
    """

    side: int
    factor: int
    layers: tuple[str, ...]


def auto_reduction(image_size: int, native: int) -> int:
    """Return ``native``, halved until the final map has at least ``MIN_MAP`` pixels per side."""
    reduction = native
    while reduction > 1 and image_size / reduction < MIN_MAP:
        reduction //= 2
    return reduction


def reduce_to(
    model: nn.Module,
    reduction: int | str,
    *,
    image_size: int,
    channels: int,
    probe: int = 128,
    skip: str = "",
) -> nn.Module:
    """Lower the total stride of ``model`` in place, and return the model.

    Args:
        model: a convolutional network whose layers are each called once.
        reduction: wanted ratio of image side to final map side, or ``"auto"``.
        image_size: pixels per side of the images.
        channels: input channels.
        probe: pixels per side of the traced image, large enough for the unchanged network.
        skip: layers whose name contains this text are not changed (their strides do not shrink the map).

    Raises:
        InfeasibleError: The network reduces less than wanted, or the final map would be empty.
    """
    steps = _steps(model, channels, probe, skip)
    native = math.prod(step.factor for step in steps)
    wanted = auto_reduction(image_size, native) if reduction == "auto" else int(reduction)
    if wanted > native:
        raise InfeasibleError(f"reduction {wanted} is more than the {native} of this network; choose {native} or less.")
    if wanted > image_size:
        raise InfeasibleError(f"reduction {wanted} leaves nothing of {image_size} px; choose {image_size} or less.")
    excess = native // wanted
    for step in steps:
        if excess == 1:
            break
        taken = min(step.factor, excess)
        for name in step.layers:
            _set_stride(model, name, step.factor, step.factor // taken)
        excess //= taken
    return model


@torch.no_grad()
def _steps(model: nn.Module, channels: int, probe: int, skip: str) -> list[_Step]:
    """Return the steps at which the map shrinks, in the order in which they run."""
    seen: dict[int, dict[str, int]] = {}
    hooks = []

    def watch(name: str) -> None:
        def note(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            before, after = inputs[0].shape[-1], output.shape[-1]
            seen.setdefault(before, {})[name] = round(before / after)

        hooks.append(model.get_submodule(name).register_forward_hook(note))

    for name, module in model.named_modules():
        strided = isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and _first(module.stride) > 1
        if strided and not (skip and skip in name):
            watch(name)
    training = model.training
    model.eval()
    try:
        parameter = next(model.parameters())
        model(torch.zeros(1, channels, probe, probe, device=parameter.device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    sides = sorted(seen, reverse=True)
    return [_Step(side, max(seen[side].values()), tuple(seen[side])) for side in sides if max(seen[side].values()) > 1]


def _first(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


def _set_stride(model: nn.Module, name: str, old: int, new: int) -> None:
    """Set a smaller stride, and the padding that makes the layer's output ``old / new`` times larger."""
    layer = model.get_submodule(name)
    if isinstance(layer, nn.Conv2d):
        kernel = layer.kernel_size[0]
        layer.stride = (new, new)
        if kernel % 2 == 0 and new == 1:  # an even kernel only keeps the size of the map if it is dilated
            layer.dilation, layer.padding = (2, 2), (kernel - 1, kernel - 1)
        elif kernel % 2 == 0:
            layer.padding = ((kernel - new) // 2,) * 2
    elif new == 1 and isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        layer.kernel_size, layer.stride, layer.padding = 1, 1, 0
    elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        layer.stride = new
    # A block that fuses its branches later uses its own attribute ``stride``, not that of its layers.
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        parent = model.get_submodule(".".join(parts[:end]))
        if hasattr(parent, "reparameterize") and getattr(parent, "stride", None) in (old, (old, old)):
            setattr(parent, "stride", new if parent.stride == old else (new, new))  # noqa: B010 - typed as Tensor | Module
