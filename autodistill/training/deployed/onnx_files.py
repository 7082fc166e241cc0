"""Writes the deployed form of students as ONNX files, and runs such files with ONNX Runtime.

The exported network is the deployed form that latency is measured on (``form.py``): branches fused, BatchNorm folded.
The input ``images`` is ``(batch, channels, side, side)`` floats, normalized as in training; the output ``logits`` is
``(batch, classes)``.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autodistill.core.errors import ResourceError, UsageError

OPSET = 18
"""Default ONNX operator set; ONNX Runtime supports it since version 1.14."""


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file on disk.

    Attributes:
        path: location of the file.
        bytes: size of the file.
        opset: operator set of the default domain.
    """

    path: Path
    bytes: int
    opset: int


def export_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    image_size: int,
    channels: int,
    opset: int = OPSET,
    dynamic_batch: bool = True,
) -> OnnxFile:
    """Write the deployed form of ``model`` as an ONNX file; the model itself is not changed.

    Args:
        model: a student, which maps ``(n, channels, image_size, image_size)`` to logits ``(n, classes)``.
        path: the new file; an existing file is replaced once the new one is complete.
        image_size: pixels per side of the input.
        channels: channels of the input.
        opset: ONNX operator set.
        dynamic_batch: whether the file takes any number of images at once; otherwise exactly one.

    Raises:
        InfeasibleError: The exporter cannot express the model.
        ResourceError: The file cannot be written.
    """
    import torch

    from autodistill.training.deployed.form import deploy
    from autodistill.training.deployed.runtimes import to_onnx

    images = torch.zeros(1, channels, image_size, image_size)
    deployed = deploy(model, image_size=image_size, channels=channels)
    return write_onnx(to_onnx(deployed, images, opset=opset, dynamic_batch=dynamic_batch), path)


def write_onnx(data: bytes, path: str | Path) -> OnnxFile:
    """Write ``data`` to ``path`` atomically, and describe the file.

    Raises:
        ResourceError: The file cannot be written.
        UsageError: ``data`` is not an ONNX file.
    """
    target = Path(path)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(data)
        os.replace(scratch, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise ResourceError(f"cannot write {target}: {error}.") from error
    return describe_onnx(target)


def describe_onnx(path: str | Path) -> OnnxFile:
    """Return size and operator set of an ONNX file.

    Raises:
        UsageError: The file is not an ONNX file.
    """
    import onnx

    target = Path(path)
    try:
        model = onnx.load(str(target), load_external_data=False)
    except Exception as error:  # the types of protobuf's errors depend on its version
        raise UsageError(f"{target} is not an ONNX file: {str(error)[:200]}") from error
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    return OnnxFile(target, target.stat().st_size, int(opset))


def open_session(source: str | Path | bytes, *, threads: int = 1) -> Any:
    """Open an ONNX Runtime session on the CPU.

    Args:
        source: an ONNX file, or its content.
        threads: number of CPU threads.

    Raises:
        UsageError: ONNX Runtime cannot load the model.
        ResourceError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ResourceError("onnxruntime is not installed: pip install onnxruntime.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    what: str | bytes = source if isinstance(source, bytes) else str(source)
    try:
        return onnxruntime.InferenceSession(what, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        named = "the ONNX model" if isinstance(source, bytes) else str(source)
        raise UsageError(f"ONNX Runtime cannot load {named}: {str(error)[:200]}") from error


def run_onnx(
    path: str | Path, images: NDArray[np.float32], *, batch_size: int = 64, threads: int = 1
) -> NDArray[np.float32]:
    """Run an ONNX file and return the logits ``(n, classes)``.

    Args:
        path: the file.
        images: ``float32 (n, channels, side, side)``, normalized as the file's input expects.
        batch_size: images per run; ignored if the file has a fixed batch size.
        threads: number of CPU threads.

    Raises:
        UsageError: The file is not an ONNX file, or does not take these images.
    """
    session = open_session(path, threads=threads)
    wanted = session.get_inputs()[0]
    fixed = wanted.shape[0]
    size = fixed if isinstance(fixed, int) else batch_size
    if isinstance(fixed, int) and len(images) % fixed:
        raise UsageError(f"{path} takes batches of exactly {fixed}; got {len(images)} images.")
    out = []
    for start in range(0, len(images), size):
        block = np.ascontiguousarray(images[start : start + size], dtype=np.float32)
        try:
            out.append(np.asarray(session.run(None, {wanted.name: block})[0], dtype=np.float32))
        except Exception as error:
            raise UsageError(f"{path} does not run on images {block.shape}: {str(error)[:200]}") from error
    if not out:
        raise UsageError(f"{path} was given no images; at least one is needed.")
    return np.concatenate(out)
