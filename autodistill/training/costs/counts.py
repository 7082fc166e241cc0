"""Counted costs of a student: parameters, MACs, activations, file sizes, peak memory.

They are counted on the deployed form (``deployed/form.py``) for one image, and are exact and repeatable. All except the
size of the ONNX file are counted on meta tensors, without computing values. Latency is measured instead, see
``latency_protocol.py``.

Peak memory covers tensors only: the weights, plus the largest sum of activations that are alive at once while one image
passes through the network, layer by layer as in PyTorch. It ignores buffers inside a convolution, and memory that a
runtime saves by running layers in place.
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

from autodistill.core.errors import InfeasibleError, first_line
from autodistill.core.registry import Registry
from autodistill.training.deployed.form import as_if_trained, deploy, skeleton

__all__ = ["Counts", "cost_metrics", "deploy", "known_costs"]


@dataclass(frozen=True)
class Counts:
    """Counts of one pass through the deployed form, from which the registered metrics are computed.

    Attributes:
        model: the deployed form, with meta tensors.
        flops: floating-point operations for one image; a multiply-add counts as two.
        operations: calls of torch operations for one image.
        activations: output values of convolutions, linear layers and attention products for one image.
        live_bytes: largest sum of bytes of tensors that are alive at once for one image, without the weights.
        export: exports the deployed form as ONNX; takes about a second, so only the metric that needs it calls it.
    """

    model: nn.Module
    flops: int
    operations: int
    activations: int
    live_bytes: int
    export: Callable[[], bytes]


CostMetric = Callable[[Counts], float]
"""Returns the value of one metric."""

cost_metrics: Registry[CostMetric] = Registry("cost metric", "autodistill.costs")


@cost_metrics.register("params")
def params(counts: Counts) -> float:
    """Return the number of parameters of the deployed form."""
    return float(sum(one.numel() for one in counts.model.parameters()))


@cost_metrics.register("macs")
def macs(counts: Counts) -> float:
    """Return the multiply-adds for one image by torch's counter, which ignores BatchNorm, activations and additions."""
    return counts.flops / 2


@cost_metrics.register("activations")
def activations(counts: Counts) -> float:
    """Return the number of output values of convolutions, linear layers and attention products for one image."""
    return float(counts.activations)


@cost_metrics.register("operations")
def operations(counts: Counts) -> float:
    """Return the number of torch operations for one image; each has a fixed overhead, however small its tensors are."""
    return float(counts.operations)


@cost_metrics.register("onnx_bytes")
def onnx_bytes(counts: Counts) -> float:
    """Return the size in bytes of the deployed form as an ONNX file, including the graph.

    The network is exported for this metric. The size equals that of the trained student, whatever the current weights.
    """
    return float(len(counts.export()))


@cost_metrics.register("bytes")
def file_bytes(counts: Counts) -> float:
    """Return the size in bytes of the deployed form as a safetensors file without metadata.

    The file that ``export`` writes for timm has another size, because it holds the form used in training.
    """
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
    """Return weights plus the most activations alive at once for one image, in megabytes (10^6 bytes)."""
    held = sum(one.numel() * one.element_size() for one in counts.model.state_dict().values())
    return float(held + counts.live_bytes) / 1e6


def known_costs(
    model: nn.Module, *, image_size: int, channels: int, metrics: Iterable[str] = ("params", "macs")
) -> dict[str, float]:
    """Return costs of the deployed form of ``model``.

    Args:
        model: a network from ``students.build``; it is not changed.
        image_size: pixels per side of the input.
        channels: channels of the input.
        metrics: registered names of the metrics.

    Returns:
        Metric to value.

    Raises:
        UnknownNameError: A metric is not registered.
        InfeasibleError: The network's forward pass fails on this shape.
    """
    wanted = {name: cost_metrics.get(name) for name in metrics}
    counts = count(model, image_size=image_size, channels=channels)
    return {name: metric(counts) for name, metric in wanted.items()}


def count(model: nn.Module, *, image_size: int, channels: int) -> Counts:
    """Pass one meta image through the deployed form and return the counts.

    Raises:
        InfeasibleError: The forward pass fails on this shape.
    """
    try:
        meta = skeleton(model, image_size=image_size, channels=channels)
        image = torch.empty(1, channels, image_size, image_size, device="meta")
        # Gradients stay enabled, because torch's counter fails on attention under no_grad; the parameters are frozen.
        with FlopCounterMode(display=False) as flops, _Live() as live:
            meta(image)
    except Exception as error:
        raise InfeasibleError(
            f"{type(model).__name__} fails on {channels} x {image_size} x {image_size} px: {first_line(error)}"
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
    """Dispatch mode that counts bytes of live storages, output values of products, and calls of operations."""

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
