"""Workaround for a fault of oneDNN: strided 1 x 1 convolutions train on CPUs as a slice and an unstrided convolution.

In channels_last, oneDNN's weight gradient of a strided 1 x 1 convolution writes past its workspace if the input has
fewer channels than a vector register has numbers (fewer than 8 with AVX2, 16 with AVX-512). The process then crashes,
hangs or continues with wrong gradients (https://github.com/uxlfoundation/oneDNN/issues/6035). Without padding, such a
convolution only reads every ``stride``-th pixel, so it equals a convolution of stride 1 on a slice of its input.
Weights and their names, counted costs, exports, latencies and passes without gradients do not change.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_BLOCK = 16
"""Numbers in the widest vector register. Inputs with at least so many channels use the original, faster convolution."""


def protect(network: nn.Module) -> nn.Module:
    """Make the strided 1 x 1 convolutions of ``network`` train on sliced inputs, in place; return the network.

    Convolutions are found by their attributes, whatever their class. A second call changes nothing. Copies of the
    network are protected too.
    """
    for layer in network.modules():
        if _is_strided_pointwise(layer) and "forward" not in vars(layer):
            layer.forward = functools.partial(_forward, layer)  # keeps the class, which other code checks
    return network


def release(network: nn.Module) -> nn.Module:
    """Undo ``protect`` in place; return the network."""
    for layer in network.modules():
        found = vars(layer).get("forward")
        if isinstance(found, functools.partial) and found.func is _forward:
            del layer.forward
    return network


def _is_strided_pointwise(layer: nn.Module) -> bool:
    """Return whether the layer has the attributes of a strided 1 x 1 convolution, as timm's ``CondConv2d`` also has."""
    kernel, stride = getattr(layer, "kernel_size", None), getattr(layer, "stride", None)
    return hasattr(layer, "weight") and kernel == (1, 1) and stride is not None and _pair(stride) != (1, 1)


def _forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Return the output of ``layer``, computed on sliced inputs if a backward pass may follow."""
    plain = type(layer).forward
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if tracing or torch.compiler.is_exporting() or not torch.is_grad_enabled():
        return plain(layer, *args, **kwargs)
    with _Sliced():
        return plain(layer, *args, **kwargs)


class _Sliced(TorchFunctionMode):
    """Function mode that replaces ``F.conv2d``, which every layer's ``forward`` calls with its final weights."""

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
    """Compute ``F.conv2d``, on a slice of the input if the weight gradient could meet the fault of oneDNN."""
    padded = padding != "valid" and (isinstance(padding, str) or any(_pair(padding)))
    learns = input.requires_grad or weight.requires_grad
    narrow = weight.shape[1] < _BLOCK and tuple(weight.shape[2:]) == (1, 1)
    if input.device.type == "cpu" and learns and narrow and not padded:
        down, across = _pair(stride)
        input, stride = input[..., ::down, ::across], 1
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return ``value`` as a pair, one number for each side."""
    return tuple(value) * (2 if len(value) == 1 else 1) if isinstance(value, tuple | list) else (value, value)
