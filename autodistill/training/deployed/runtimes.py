"""Runtimes that latency is measured with. Each is one registered function of this module."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autodistill.core.errors import InfeasibleError, ResourceError, UsageError, first_line
from autodistill.core.records import LatencyTarget
from autodistill.core.registry import Registry
from autodistill.core.scratch import scratch_folder
from autodistill.training.deployed.form import deploy

Run = Callable[[], Any]
"""Runs one inference and waits until it is finished."""

Runtime = Callable[[nn.Module, torch.Tensor, LatencyTarget], Run]
"""``runtime(deployed model, images, target)``: prepare the inference of these images."""
runtimes: Registry[Runtime] = Registry("runtime", "autodistill.runtimes")

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@runtimes.register("torch")
def eager(model: nn.Module, images: torch.Tensor, target: LatencyTarget) -> Run:
    """Prepare eager PyTorch in inference mode; channels last on CUDA, where convolutions are faster with it."""
    device = _device(target)
    dtype = _dtype(target)
    memory = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    model = model.to(device, dtype).to(memory_format=memory)
    images = images.to(device, dtype).contiguous(memory_format=memory)

    def run() -> None:
        with torch.inference_mode():
            model(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


@runtimes.register("torch-compile")
def compiled(model: nn.Module, images: torch.Tensor, target: LatencyTarget) -> Run:
    """Prepare PyTorch with ``torch.compile``; the compilation happens during the warm-up."""
    return eager(torch.compile(model, dynamic=False), images, target)  # type: ignore[arg-type]


@runtimes.register("onnxruntime")
def onnx(model: nn.Module, images: torch.Tensor, target: LatencyTarget) -> Run:
    """Prepare ONNX Runtime on the exported file, on the CPU, or on CUDA if the installed package supports it."""
    try:
        import onnxruntime
    except ImportError:
        raise ResourceError("runtime 'onnxruntime' needs the package onnxruntime: pip install onnxruntime.") from None
    if target.precision != "fp32":
        raise UsageError(f"runtime 'onnxruntime' measures fp32, got {target.precision!r}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    provider = "CUDAExecutionProvider" if target.device.startswith("cuda") else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise ResourceError(f"this onnxruntime has no {provider}; install onnxruntime-gpu or measure on the cpu.")
    session = onnxruntime.InferenceSession(to_onnx(model, images), options, providers=[provider])
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)


def to_onnx(model: nn.Module, images: torch.Tensor, *, opset: int | None = None, dynamic_batch: bool = True) -> bytes:
    """Export a deployed model as the content of an ONNX file.

    Args:
        model: a network in its deployed form.
        images: an example input.
        opset: ONNX operator set; torch's default if omitted.
        dynamic_batch: whether the file takes any number of images at once; otherwise as many as in the example.

    Raises:
        InfeasibleError: The exporter cannot express the model.
    """
    with scratch_folder("onnx") as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "model.onnx"
        try:
            with warnings.catch_warnings():
                # torch's legacy exporter is ten times as fast as the new one and does not need onnxscript.
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    model.cpu().float(),
                    (images.cpu(),),
                    str(path),
                    input_names=["images"],
                    output_names=["logits"],
                    dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}} if dynamic_batch else None,
                    opset_version=opset,
                    dynamo=False,
                )
        except Exception as error:
            raise InfeasibleError(f"{type(model).__name__} cannot be exported to ONNX: {first_line(error)}") from error
        return path.read_bytes()


def prepare_run(model: nn.Module, target: LatencyTarget, *, image_size: int, channels: int) -> Run:
    """Prepare one inference of the deployed form of ``model`` on ``target``; the model itself is not changed.

    Args:
        model: a student.
        target: runtime, device, precision and batch size.
        image_size: pixels per side of the input.
        channels: channels of the input.

    Raises:
        UnknownNameError: The runtime does not exist.
        UsageError: The precision or device does not exist.
        ResourceError: The runtime or device is not available on this machine.
    """
    make = runtimes.get(target.runtime)
    _dtype(target)
    _device(target)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(target.batch, channels, image_size, image_size, generator=generator)
    return make(deploy(model, image_size=image_size, channels=channels), images, target)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Run torch on ``count`` threads inside this context, and restore the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _dtype(target: LatencyTarget) -> torch.dtype:
    if target.precision not in _DTYPES:
        raise UsageError(f"precision {target.precision!r} does not exist; allowed: {', '.join(_DTYPES)}.")
    return _DTYPES[target.precision]


def _device(target: LatencyTarget) -> torch.device:
    try:
        device = torch.device(target.device)
    except RuntimeError:
        raise UsageError(f"latency.device {target.device!r} does not exist; write cpu, cuda or cuda:1.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ResourceError("latency.device is cuda, and this machine has no CUDA device; measure on the cpu.")
    return device
