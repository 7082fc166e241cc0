"""Smaller forms of an ONNX file: eight-bit integers and half precision, by ONNX Runtime's own tools.

Weights are quantized symmetrically per output channel, activations per tensor; input and output stay fp32. Of the
forms that ONNX Runtime can write, those that run on the CPU are kept for the choice, and the smallest of them wins:
for a student of some thousand weights the description of its layers weighs as much as the weights.

Nothing here measures accuracy; whoever exports does (``delivery/``).
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import InfeasibleError, UnknownNameError, UsageError
from autodistill.training.deployed.onnx_files import run_onnx, write_onnx

Images = NDArray[np.float32]

METHODS = ("static", "dynamic")
RANGES = ("minmax", "entropy", "percentile")
_BATCH = 32
_PROBE = 2  # images that a new file must survive


def quantize_int8(
    source: str | Path,
    out: str | Path,
    *,
    calibration: Images,
    method: Literal["static", "dynamic"] = "static",
    ranges: str = "minmax",
    reduce_range: bool = True,
) -> Path:
    """Write ``source`` with eight-bit weights, and with eight-bit activations whose ranges are known or found.

    Args:
        source: an fp32 ONNX file.
        out: where to; an existing file is replaced.
        calibration: ``float32 (n, channels, side, side)`` as the file's input expects, normalized; its activations
            set the ranges of ``static``; of ``dynamic`` only a few are used, to see that the file runs.
        method: ``static`` fixes the ranges of activations now, ``dynamic`` finds them anew for every batch.
        ranges: how ``static`` gets a range from the calibration: ``minmax``, ``entropy`` or ``percentile``.
        reduce_range: seven bits for weights. With eight, x86 processors without VNNI overflow the 16-bit sums of ONNX
            Runtime's kernels, and a file that is right on one machine is wrong on another.

    Returns:
        ``out``.

    Raises:
        UsageError: no such method, no calibration image, or ``source`` is not an ONNX file.
        InfeasibleError: none of the forms that ONNX Runtime offers can be written and run.
    """
    if method not in METHODS:
        raise UnknownNameError("method of quantization", method, METHODS)
    if ranges not in RANGES:
        raise UnknownNameError("kind of calibration", ranges, RANGES)
    if len(calibration) == 0:
        raise UsageError("quantization needs images to calibrate with, got none.")
    run_onnx(source, calibration[:_PROBE])  # a wrong file or wrong images are said here, in words
    with tempfile.TemporaryDirectory(prefix="autodistill-int8-") as folder, _quiet():
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
        out: where to; an existing file is replaced.

    Raises:
        UsageError: ``source`` is not an ONNX file.
        InfeasibleError: it cannot be converted, or the result does not load.
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
        raise InfeasibleError(f"{Path(source).name} cannot be converted to fp16: {_first_line(error)}") from error
    return write_onnx(data, out).path


Attempt = Callable[[Path], None]


def _static(source: Path, calibration: Images, ranges: str, reduce_range: bool) -> list[Attempt]:
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
    """Integer convolutions of ONNX Runtime's CPU take unsigned weights; where they take none, only matrices shrink."""
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
    """The smallest file that one of ``attempts`` writes and that gives finite numbers."""
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
        except Exception as error:  # onnx and ONNX Runtime raise many kinds, by operator and version
            reason = reason or _first_line(error)
    if not found:
        raise InfeasibleError(f"{named} cannot be quantized: {reason}")
    return min(found, key=len)


def _of_fixed_width(path: Path) -> bytes:
    """The file with every constant as raw bytes, so that its size is that of the architecture, whatever its weights.

    The quantizer writes zero points as numbers of variable width, one byte below 128 and two from there on: files of
    equal students differed by some bytes, and on a front the least accurate of them stayed for a byte.
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
    """``source`` with shapes inferred and constants folded, as the quantizer wants it; itself where that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    try:
        quant_pre_process(str(source), str(out), skip_symbolic_shape=True)
    except Exception:  # an optional step: the quantizer also takes the plain file
        return source
    return out


class _Reader:
    """Calibration images in batches of one size (histograms take no other), as ONNX Runtime asks for them."""

    def __init__(self, path: Path, images: Images) -> None:
        from autodistill.training.deployed.onnx_files import open_session

        self._name = str(open_session(path).get_inputs()[0].name)
        self._images = images[: len(images) - len(images) % _BATCH] if len(images) > _BATCH else images
        self._next = 0

    def get_next(self) -> dict[str, Images] | None:
        """The next batch, or ``None`` at the end."""
        block = self._images[self._next : self._next + _BATCH]
        self._next += _BATCH
        return {self._name: np.ascontiguousarray(block, dtype=np.float32)} if len(block) else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tools' hints from the user, and the handlers they install from the program's logging."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.manager.disable
    root.addHandler(logging.NullHandler())  # with one there, logging.info() installs none of its own
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.handlers[:] = handlers


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__
