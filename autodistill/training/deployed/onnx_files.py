"""ONNX files of students: written in the deployed form, run by ONNX Runtime, described without torch.

What is exported is what latency is measured on (``deployed.py``): branches fused, BatchNorm folded. The input is
called ``images``: floats, normalized as the student was trained, ``(batch, channels, side, side)``; the output is
``logits``, ``(batch, classes)``.
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
"""The ONNX operator set that is written unless another is asked for: known to ONNX Runtime since 1.14."""


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file on disk.

    Attributes:
        bytes: its size.
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
    """Write the deployed form of ``model`` as an ONNX file; the model itself is not touched.

    Args:
        model: a student; ``(n, channels, image_size, image_size)`` to logits ``(n, classes)``.
        path: where to; an existing file is replaced once the new one is whole.
        image_size: pixels per side of its input.
        channels: channels of its input.
        opset: ONNX operator set.
        dynamic_batch: any number of images at once; otherwise exactly one.

    Raises:
        InfeasibleError: the exporter cannot express the model.
        ResourceError: the file cannot be written.
    """
    import torch

    from autodistill.training.deployed.form import deploy
    from autodistill.training.deployed.runtimes import to_onnx

    images = torch.zeros(1, channels, image_size, image_size)
    deployed = deploy(model, image_size=image_size, channels=channels)
    return write_onnx(to_onnx(deployed, images, opset=opset, dynamic_batch=dynamic_batch), path)


def write_onnx(data: bytes, path: str | Path) -> OnnxFile:
    """Put ``data`` at ``path``, whole or not at all.

    Raises:
        ResourceError: the file cannot be written.
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
    """Size and operator set of a file.

    Raises:
        UsageError: it is not an ONNX file.
    """
    import onnx

    target = Path(path)
    try:
        model = onnx.load(str(target), load_external_data=False)
    except Exception as error:  # protobuf's own errors, by version
        raise UsageError(f"{target} is not an ONNX file: {str(error)[:200]}") from error
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    return OnnxFile(target, target.stat().st_size, int(opset))


def open_session(source: str | Path | bytes, *, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU.

    Raises:
        UsageError: ONNX Runtime cannot load it.
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
    """Logits ``(n, classes)`` of a file for ``images``.

    Args:
        path: the file.
        images: ``float32 (n, channels, side, side)``, as its input expects: normalized.
        batch_size: images at once; a file of a fixed batch is given as many as it takes, one by one.
        threads: of the CPU.

    Raises:
        UsageError: it is not an ONNX file, or does not take these images.
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
        raise UsageError(f"{path} was given no image.")
    return np.concatenate(out)
