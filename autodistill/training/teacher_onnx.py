"""An ONNX file as a teacher: run by ONNX Runtime on the CPU, fed in the layout and precision that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodistill.errors import TeacherError, UsageError, first_lines
from autodistill.records import TeacherSpec
from autodistill.training.datasets import ImageData
from autodistill.training.onnx_files import open_session
from autodistill.training.teacher import Preprocessing, Teacher, fingerprint_of
from autodistill.training.teacher_options import expected


def load_onnx(path: Path, spec: TeacherSpec, data: ImageData) -> Teacher:
    """The network of a file; sizes that the file leaves open are those of ``data``.

    Raises:
        TeacherError: it cannot be loaded, or takes no images.
    """
    try:
        content = path.read_bytes()
        # From bytes: a model that keeps tensors in other files, at any path, cannot reach them.
        session = open_session(content, threads=torch.get_num_threads())
    except (OSError, UsageError) as error:
        raise TeacherError(f"ONNX teacher {path} cannot be loaded: {first_lines(error)}") from error
    entry = session.get_inputs()[0]
    shape = [side if isinstance(side, int) else None for side in entry.shape]
    if len(shape) != 4:
        raise TeacherError(f"ONNX teacher {path} takes {entry.shape}; expected (batch, channels, side, side).")
    expects = expected(spec, Preprocessing(shape[2] or data.image_size, shape[1] or data.channels), data)
    run = _function(session, entry.name, shape[0])
    return Teacher(str(path), fingerprint_of(content, expects), expects, torch.device("cpu"), run)


def _function(session: Any, name: str, batch: int | None) -> Callable[[Tensor], Tensor]:
    """The session as a function of a batch; a fixed batch size is fed in pieces, the last one padded."""

    def run(images: Tensor) -> Tensor:
        size = batch or len(images)
        out = []
        for start in range(0, len(images), size):
            piece = images[start : start + size]
            missing = size - len(piece)
            padded = torch.cat([piece, piece[-1:].expand(missing, -1, -1, -1)]) if missing else piece
            answer = session.run(None, {name: padded.contiguous().numpy()})[0]
            out.append(torch.from_numpy(np.array(answer))[: len(piece)])
        return torch.cat(out)

    return run
