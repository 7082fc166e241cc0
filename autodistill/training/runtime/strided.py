"""Trains strided pointwise convolutions on CPUs by way of a slice, which is the same function.

In channels_last, oneDNN's weight gradient of a 1 x 1 convolution with a stride writes past its workspace where the
input has fewer channels than a vector register has numbers (fewer than 8 with AVX2, 16 with AVX-512): the process
crashes, hangs or goes on with wrong gradients (https://github.com/uxlfoundation/oneDNN/issues/6035). Without padding
such a convolution reads every ``stride``-th pixel only, so it equals a slice of its input and a convolution of
stride 1. Weights, their names, what is counted, exported or timed, and every pass without gradients stay as they are.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_BLOCK = 16
"""Numbers in the widest vector register: wider inputs keep to their memory, and to the faster convolution as it is."""


def protect(network: nn.Module) -> nn.Module:
    """Have the strided 1 x 1 convolutions of ``network``, of whatever class, train on sliced inputs; returns it.

    Nothing happens to a network that has none, or a second time. Copies of the network are protected too.
    """
    for layer in network.modules():
        if _concerned(layer) and "forward" not in vars(layer):
            layer.forward = functools.partial(_forward, layer)  # the class stays: others look at it by its type
    return network


def release(network: nn.Module) -> nn.Module:
    """Undo ``protect``; returns the network."""
    for layer in network.modules():
        found = vars(layer).get("forward")
        if isinstance(found, functools.partial) and found.func is _forward:
            del layer.forward
    return network


def _concerned(layer: nn.Module) -> bool:
    """Whether the layer is a 1 x 1 convolution with a stride; one by its attributes, such as timm's ``CondConv2d``."""
    kernel, stride = getattr(layer, "kernel_size", None), getattr(layer, "stride", None)
    return hasattr(layer, "weight") and kernel == (1, 1) and stride is not None and _pair(stride) != (1, 1)


def _forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What ``layer`` gives, by way of a slice where a backward pass on a CPU may follow."""
    plain = type(layer).forward
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if tracing or torch.compiler.is_exporting() or not torch.is_grad_enabled():
        return plain(layer, *args, **kwargs)
    with _Sliced():
        return plain(layer, *args, **kwargs)


class _Sliced(TorchFunctionMode):
    """Replaces ``F.conv2d``, which every layer's own ``forward`` ends in after it has made weights or padding."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.conv2d:
            return _conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv2d``; the stride of a narrow 1 x 1 kernel without padding is a slice, on a CPU under gradients."""
    padded = padding != "valid" and (isinstance(padding, str) or any(_pair(padding)))
    learns = input.requires_grad or weight.requires_grad
    narrow = weight.shape[1] < _BLOCK and tuple(weight.shape[2:]) == (1, 1)
    if input.device.type == "cpu" and learns and narrow and not padded:
        down, across = _pair(stride)
        input, stride = input[..., ::down, ::across], 1
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    """``value`` for both sides."""
    return tuple(value) * (2 if len(value) == 1 else 1) if isinstance(value, tuple | list) else (value, value)
