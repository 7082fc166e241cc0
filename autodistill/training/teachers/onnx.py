"""ONNX files as teachers: run by ONNX Runtime on the CPU, with input in the file's layout and precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodistill.core.errors import TeacherError, UsageError, first_lines
from autodistill.core.records import TeacherSpec
from autodistill.training.data.datasets import ImageData
from autodistill.training.deployed.onnx_external import read_model
from autodistill.training.deployed.onnx_files import open_session
from autodistill.training.teachers.options import expected
from autodistill.training.teachers.teacher import Preprocessing, Teacher, fingerprint_of

_KINDS = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}
_CHANNELS = (1, 3)
_SHAPE = "(batch, channels, side, side) or (batch, side, side, channels)"


def load_onnx(path: Path, spec: TeacherSpec, data: ImageData) -> Teacher:
    """Load the network of a file; sizes that the file leaves open are those of ``data``.

    Raises:
        TeacherError: the file cannot be loaded, or its input is not a batch of images.
    """
    try:
        content = read_model(path)
    except OSError as error:
        raise TeacherError(f"ONNX teacher {path} cannot be loaded: {error}") from error
    except UsageError as error:
        raise TeacherError(f"ONNX teacher: {error}") from error
    try:  # loaded from bytes: from a path, ONNX Runtime would read tensors from any file that the model names
        session = open_session(content, threads=torch.get_num_threads())
    except UsageError as error:
        raise TeacherError(f"ONNX teacher {path} cannot be loaded: {first_lines(error.__cause__ or error)}") from error
    entry = _entry(session, path)
    default = Preprocessing(entry.side or data.image_size, entry.channels or data.channels)
    expects = expected(spec, default, data)
    run = _function(session, entry)
    return Teacher(str(path), fingerprint_of(content, expects), expects, torch.device("cpu"), run)


@dataclass(frozen=True)
class _Entry:
    """The input of a network.

    Attributes:
        name: name of the input.
        kind: element type.
        batch: images per batch; ``None`` if any number is allowed.
        channels: number of channels; ``None`` if any number is allowed.
        side: pixels per side; ``None`` if any number is allowed.
        last: whether channels are the last dimension instead of the second.
    """

    name: str
    kind: torch.dtype
    batch: int | None
    channels: int | None
    side: int | None
    last: bool


def _entry(session: Any, path: Path) -> _Entry:
    """Return the input of the network.

    Raises:
        TeacherError: the input is not a batch of square images of floats.
    """
    inputs = session.get_inputs()
    takes = f"ONNX teacher {path} takes {' and '.join(f'{one.type} {one.shape}' for one in inputs)}; expected "
    shape = [side if isinstance(side, int) else None for side in inputs[0].shape]
    if len(inputs) != 1 or len(shape) != 4:
        raise TeacherError(f"{takes}one input {_SHAPE}.")
    if inputs[0].type not in _KINDS:
        raise TeacherError(
            f"{takes}floats: {', '.join(_KINDS)}. Export it with such an input, or give a function that converts the "
            "images (docs/how_to/own_teacher.md)."
        )
    last = shape[3] in _CHANNELS and shape[1] not in _CHANNELS
    channels, height, width = (shape[3], *shape[1:3]) if last else shape[1:]
    oblong = None not in (height, width) and height != width
    if oblong or channels not in (None, *_CHANNELS):
        raise TeacherError(f"{takes}1 or 3 channels and equal sides, {_SHAPE}. Export it with such an input.")
    return _Entry(inputs[0].name, _KINDS[inputs[0].type], shape[0], channels, height or width, last)


def _function(session: Any, entry: _Entry) -> Callable[[Tensor], Tensor]:
    """Wrap the session as a function of a batch; for a fixed batch size, the batch is split and its end padded.

    The function raises ``RuntimeError`` if the network fails on the images.
    """

    def run(images: Tensor) -> Tensor:
        size = entry.batch or len(images)
        laid = (images.permute(0, 2, 3, 1) if entry.last else images).to(entry.kind)
        out = []
        for start in range(0, len(laid), size):
            piece = laid[start : start + size]
            missing = size - len(piece)
            padded = torch.cat([piece, piece[-1:].expand(missing, -1, -1, -1)]) if missing else piece
            try:
                answer = session.run(None, {entry.name: padded.contiguous().numpy()})[0]
            except Exception as error:  # ONNX Runtime's exceptions are not RuntimeErrors
                raise RuntimeError(first_lines(error)) from error
            out.append(torch.from_numpy(np.array(answer))[: len(piece)])
        return torch.cat(out)

    return run
