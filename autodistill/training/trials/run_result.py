"""What one retraining showed on the test split, and how it is read from the folder of the run."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autodistill.core.errors import StoreError

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Result:
    """What one run showed.

    Attributes:
        key: of the training (``Run.key``): student, recipe, seed, images and teacher.
        test: fingerprint of the test images.
        images: number of them.
        accuracy, loss, ece: on the test split; ``agreement`` with the teacher, ``None`` where it cannot say.
        validation: accuracy on validation; ``None`` where it was trained on.
        right: packed bits, one per test image.
        seconds: of training.
        weights: SHA-256 of the student's file.
        measures: every other measure on the test split, by name; empty in results of earlier versions.
        confusion: images of each class (row) by the class that was decided (column); likewise.
    """

    key: str
    test: str
    images: int
    accuracy: float
    loss: float
    ece: float
    agreement: float | None
    validation: float | None
    right: str
    seconds: float
    weights: str
    measures: Mapping[str, float] = field(default_factory=dict)
    confusion: Sequence[Sequence[int]] = ()

    def correct(self) -> Bools:
        """Right answers ``(images,)``."""
        bits = np.frombuffer(base64.b64decode(self.right), dtype=np.uint8)
        return np.unpackbits(bits, count=self.images).astype(bool)


def read_result(folder: Path, key: str | None = None) -> Result | None:
    """The result in a run's folder; ``None`` where there is none, it is damaged, or of another training."""
    from autodistill.training.runtime.durable_files import read_folder

    place = folder / "result"
    if not place.is_dir():
        return None
    try:
        result = Result(**json.loads(read_folder(place)[0]["result.json"]))
    except (StoreError, KeyError, TypeError, ValueError):
        return None
    return result if key in (None, result.key) else None
