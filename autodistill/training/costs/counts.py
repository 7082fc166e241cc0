"""What a student costs before it is trained: parameters, MACs, activations, bytes, peak memory.

All are counted on the deployed form (see ``deployed``) at batch 1, and are exact and repeatable. All but the size of
the ONNX file are counted without computing anything. Latency is measured, not counted: see ``latency``.

Peak memory is that of tensors: the weights, and the most activations that are alive at once while one image passes
through the network as PyTorch runs it, layer by layer. Buffers that a convolution needs inside one layer, and what
a runtime saves by running layers in place, are not in it.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from autodistill.core.errors import InfeasibleError
from autodistill.core.registry import Registry
from autodistill.training.deployed.form import as_if_trained, deploy, skeleton

__all__ = ["Counts", "cost_metrics", "deploy", "known_costs"]


@dataclass(frozen=True)
class Counts:
    """What one pass over the deployed form showed; the registered metrics read it.

    Attributes:
        model: the deployed form, of meta tensors.
        flops: floating-point operations of one image; a multiply-add counts as two.
        operations: calls of torch operations for one image.
        activations: numbers given by convolutions, linear layers and attention products for one image.
        live_bytes: largest sum of tensors alive at once while one image passes, weights not included.
        export: writes the deployed form as ONNX; takes a second, so it is called by the metric that needs it alone.
    """

    model: nn.Module
    flops: int
    operations: int
    activations: int
    live_bytes: int
    export: Callable[[], bytes]


CostMetric = Callable[[Counts], float]
cost_metrics: Registry[CostMetric] = Registry("cost metric", "autodistill.costs")


@cost_metrics.register("params")
def params(counts: Counts) -> float:
    """Numbers in the deployed parameters."""
    return float(sum(one.numel() for one in counts.model.parameters()))


@cost_metrics.register("macs")
def macs(counts: Counts) -> float:
    """Multiply-adds of one image, as torch's own counter sees them (BatchNorm, activations and adds are free)."""
    return counts.flops / 2


@cost_metrics.register("activations")
def activations(counts: Counts) -> float:
    """Numbers given by convolutions, linear layers and attention products for one image."""
    return float(counts.activations)


@cost_metrics.register("operations")
def operations(counts: Counts) -> float:
    """Calls of torch operations for one image: each costs its start, however small its tensors are."""
    return float(counts.operations)


@cost_metrics.register("onnx_bytes")
def onnx_bytes(counts: Counts) -> float:
    """Size of the deployed form as an ONNX file, which is written for it; the graph outweighs very small weights.

    It is that of the trained student's file, whatever weights the network has now.
    """
    return float(len(counts.export()))


@cost_metrics.register("bytes")
def file_bytes(counts: Counts) -> float:
    """Size of the deployed form as a safetensors file without metadata; ``export`` ships the trained form, for timm."""
    header: dict[str, Any] = {}
    position = 0
    for name, one in sorted(counts.model.state_dict().items(), key=lambda item: (-item[1].element_size(), item[0])):
        end = position + one.numel() * one.element_size()
        header[name] = {"dtype": _NAMES[one.dtype], "shape": list(one.shape), "data_offsets": [position, end]}
        position = end
    text = len(json.dumps(header, separators=(",", ":")))
    return float(8 + -(-text // 8) * 8 + position)


_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
          torch.int64: "I64", torch.int32: "I32", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}  # fmt: skip


@cost_metrics.register("peak_memory_mb")
def peak_memory_mb(counts: Counts) -> float:
    """Weights plus the most activations alive at once, in megabytes (10^6 bytes), for one image."""
    held = sum(one.numel() * one.element_size() for one in counts.model.state_dict().values())
    return float(held + counts.live_bytes) / 1e6


def known_costs(
    model: nn.Module, *, image_size: int, channels: int, metrics: Iterable[str] = ("params", "macs")
) -> dict[str, float]:
    """Costs of the deployed form of ``model``, counted without computing.

    Args:
        model: a network from ``students.build``; it is not touched.
        image_size: pixels per side of its input.
        channels: channels of its input.
        metrics: registered names.

    Raises:
        UnknownNameError: a metric that is not registered.
        InfeasibleError: the network's forward pass fails on this shape.
    """
    wanted = {name: cost_metrics.get(name) for name in metrics}
    counts = count(model, image_size=image_size, channels=channels)
    return {name: metric(counts) for name, metric in wanted.items()}


def count(model: nn.Module, *, image_size: int, channels: int) -> Counts:
    """One pass of one meta image through the deployed form.

    Raises:
        InfeasibleError: the forward pass fails on this shape.
    """
    try:
        meta = skeleton(model, image_size=image_size, channels=channels)
        image = torch.empty(1, channels, image_size, image_size, device="meta")
        # Frozen parameters and grad mode left on: torch's counter fails on attention under no_grad.
        with FlopCounterMode(display=False) as flops, _Live() as live:
            meta(image)
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InfeasibleError(
            f"{type(model).__name__} fails on {channels} x {image_size} x {image_size} px: {line}"
        ) from error
    return Counts(
        meta, flops.get_total_flops(), live.operations, live.products, live.peak,
        export=lambda: _exported(model, image_size, channels),
    )  # fmt: skip


def _exported(model: nn.Module, image_size: int, channels: int) -> bytes:
    from autodistill.training.deployed.runtimes import to_onnx

    deployed = as_if_trained(deploy(model, image_size=image_size, channels=channels))
    return to_onnx(deployed, torch.zeros(1, channels, image_size, image_size))


_PRODUCTS = ("convolution", "addmm", "mm", "bmm", "baddbmm")


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive, the outputs of products, and the calls."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.products = self.operations = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        name = func.overloadpacket.__name__
        outputs = [one for one in tree_leaves(out) if isinstance(one, torch.Tensor)]
        if name in _PRODUCTS or "scaled_dot_product" in name:
            self.products += outputs[0].numel()
        for one in outputs:
            storage = one.untyped_storage()
            key = storage._cdata
            if key not in self._known:
                self._known.add(key)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
