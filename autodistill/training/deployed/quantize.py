"""Converts ONNX files to eight-bit integers (int8) and half precision (fp16) with ONNX Runtime's tools.

Weights are quantized symmetrically per output channel, activations per tensor; input and output stay fp32. ONNX Runtime
can write several int8 forms. Those that run on the CPU are compared, and the smallest is kept: in a student with some
thousand weights, the description of the layers is as large as the weights.

This module does not measure accuracy; the export does (``delivery/``).
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import InfeasibleError, UnknownNameError, UsageError, first_line
from autodistill.core.scratch import scratch_folder
from autodistill.training.deployed.onnx_files import run_onnx, write_onnx

Images = NDArray[np.float32]

METHODS = ("static", "dynamic")
RANGES = ("minmax", "entropy", "percentile")
_BATCH = 32
_PROBE = 2  # images on which a new file must run


def quantize_int8(
    source: str | Path,
    out: str | Path,
    *,
    calibration: Images,
    method: Literal["static", "dynamic"] = "static",
    ranges: str = "minmax",
    reduce_range: bool = True,
) -> Path:
    """Write ``source`` with eight-bit weights and activations.

    Args:
        source: an fp32 ONNX file.
        out: the new file; an existing file is replaced.
        calibration: images ``float32 (n, channels, side, side)``, normalized as the file's input expects. ``static``
            takes the ranges of activations from them; ``dynamic`` only uses a few to check that the file runs.
        method: ``static`` fixes the ranges of activations now; ``dynamic`` computes them for every batch.
        ranges: how ``static`` computes a range from the calibration: ``minmax``, ``entropy`` or ``percentile``.
        reduce_range: use seven bits for weights. With eight bits, the 16-bit sums of ONNX Runtime's kernels overflow on
            x86 processors without VNNI, so that a file can be correct on one machine and wrong on another.

    Returns:
        The path ``out``.

    Raises:
        UsageError: The method or kind of ranges does not exist, there are no calibration images, or ``source`` is not
            an ONNX file.
        InfeasibleError: ONNX Runtime cannot write or run any of its int8 forms.
    """
    if method not in METHODS:
        raise UnknownNameError("method of quantization", method, METHODS)
    if ranges not in RANGES:
        raise UnknownNameError("kind of calibration", ranges, RANGES)
    if len(calibration) == 0:
        raise UsageError("quantization needs images to calibrate with, got none.")
    run_onnx(source, calibration[:_PROBE])  # reports a wrong file or wrong images with a clear message
    with scratch_folder("int8") as folder, _quiet():
        ready = _prepared(Path(source), Path(folder) / "ready.onnx")
        if method == "static":
            attempts = _static(ready, calibration, ranges, reduce_range)
        else:
            attempts = _dynamic(ready, reduce_range)
        data = _smallest(attempts, Path(folder), calibration[:_PROBE], f"{Path(source).name} ({method} int8)")
    return write_onnx(data, out).path


def to_fp16(source: str | Path, out: str | Path) -> Path:
    """Write ``source`` in half precision; input and output stay fp32.

    Args:
        source: an fp32 ONNX file.
        out: the new file; an existing file is replaced.

    Returns:
        The path ``out``.

    Raises:
        UsageError: ``source`` is not an ONNX file.
        InfeasibleError: The file cannot be converted, or the result does not load.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from autodistill.training.deployed.onnx_files import describe_onnx, open_session

    describe_onnx(source)
    try:
        with _quiet():
            model = convert_float_to_float16(onnx.load(str(source)), keep_io_types=True)
            data: bytes = model.SerializeToString()
            open_session(data)
    except Exception as error:
        raise InfeasibleError(f"{Path(source).name} cannot be converted to fp16: {first_line(error)}") from error
    return write_onnx(data, out).path


Attempt = Callable[[Path], None]
"""Writes one int8 form to a path."""


def _static(source: Path, calibration: Images, ranges: str, reduce_range: bool) -> list[Attempt]:
    """Return the attempts for static quantization, one for each layout of ONNX Runtime (QOperator and QDQ)."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    calibrate = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }[ranges]

    def attempt(layout: Any) -> Attempt:
        def write(path: Path) -> None:
            quantize_static(
                str(source), str(path), _Reader(source, calibration), quant_format=layout, per_channel=True,
                reduce_range=reduce_range, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                calibrate_method=calibrate,
            )  # fmt: skip

        return write

    return [attempt(layout) for layout in (QuantFormat.QOperator, QuantFormat.QDQ)]


def _dynamic(source: Path, reduce_range: bool) -> list[Attempt]:
    """Return the attempts for dynamic quantization.

    ONNX Runtime's integer convolutions on the CPU need unsigned weights. The last attempt quantizes matrices only, for
    networks whose convolutions cannot be quantized.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def attempt(kind: Any, layers: list[str] | None, per_channel: bool) -> Attempt:
        def write(path: Path) -> None:
            quantize_dynamic(
                str(source), str(path), op_types_to_quantize=layers, per_channel=per_channel,
                reduce_range=reduce_range, weight_type=kind,
            )  # fmt: skip

        return write

    return [
        attempt(QuantType.QInt8, None, True),
        attempt(QuantType.QUInt8, None, False),
        attempt(QuantType.QInt8, ["MatMul", "Gemm"], True),
    ]


def _smallest(attempts: list[Attempt], folder: Path, probe: Images, named: str) -> bytes:
    """Return the smallest file that one of ``attempts`` writes and whose outputs are finite.

    Raises:
        InfeasibleError: No attempt gives such a file.
    """
    found: list[bytes] = []
    reason = ""
    for index, write in enumerate(attempts):
        path = folder / f"attempt-{index}.onnx"
        try:
            write(path)
            data = _of_fixed_width(path)
            path.write_bytes(data)
            if not np.isfinite(run_onnx(path, probe)).all():
                raise ArithmeticError("its outputs are not finite")
            found.append(data)
        except Exception as error:  # onnx and ONNX Runtime raise many types, depending on operator and version
            reason = reason or first_line(error)
    if not found:
        raise InfeasibleError(f"{named} cannot be quantized: {reason}")
    return min(found, key=len)


def _of_fixed_width(path: Path) -> bytes:
    """Return the file with all constants as raw bytes, so that its size depends on the architecture only.

    The quantizer writes zero points as numbers of variable width: one byte below 128, two bytes from 128 on. Files of
    equal architectures would differ by a few bytes, and less accurate students would stay on the front for one byte.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    data: bytes = model.SerializeToString()
    return data


def _prepared(source: Path, out: Path) -> Path:
    """Infer shapes and fold constants for the quantizer; return ``source`` itself if that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    try:
        quant_pre_process(str(source), str(out), skip_symbolic_shape=True)
    except Exception:  # an optional step: the quantizer also takes the plain file
        return source
    return out


class _Reader:
    """Calibration data reader for ONNX Runtime: batches of equal size, which the histogram calibrators require."""

    def __init__(self, path: Path, images: Images) -> None:
        from autodistill.training.deployed.onnx_files import open_session

        self._name = str(open_session(path).get_inputs()[0].name)
        self._images = images[: len(images) - len(images) % _BATCH] if len(images) > _BATCH else images
        self._next = 0

    def get_next(self) -> dict[str, Images] | None:
        """Return the next batch as input name to images, or ``None`` at the end."""
        block = self._images[self._next : self._next + _BATCH]
        self._next += _BATCH
        return {self._name: np.ascontiguousarray(block, dtype=np.float32)} if len(block) else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress output and warnings of the tools inside this context, and remove log handlers that they install."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.manager.disable
    root.addHandler(logging.NullHandler())  # logging.info() only installs a handler if there is none
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.handlers[:] = handlers
