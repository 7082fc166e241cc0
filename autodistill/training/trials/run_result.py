"""Result of one retraining on the test split, and its reading from the folder of the run."""

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
    """Result of one run on the test split.

    Attributes:
        key: key of the training (``Run.key``), of student, recipe, seed, images and teacher.
        test: fingerprint of the test images.
        images: number of test images.
        accuracy: share of correctly classified test images; with several labels per image all of them must be right.
        loss: mean cross-entropy on the test images.
        ece: expected calibration error on the test images.
        agreement: share of test images with the teacher's predicted class; ``None`` if the teacher has no outputs.
        validation: accuracy on validation; ``None`` if the run was trained on the validation images.
        right: base64 of packed bits, one per test image; 1 if it is classified correctly.
        seconds: training time in seconds.
        weights: SHA-256 of the student's file of weights.
        measures: every other measure on the test split, by name; empty in results of earlier versions.
        confusion: number of test images of each true class (row) and predicted class (column); likewise, and with
            several labels per image.
        label_counts: with several labels per image, the number of test images of each label (row) that are present and
            predicted, only predicted, only present, neither (columns); else empty.
        decided: base64 of one little-endian 32-bit integer per test image, the class that it was decided to be;
            likewise.
        drawings: each measure for resampled test images, by name: base64 of little-endian 32-bit floats; likewise.
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
    label_counts: Sequence[Sequence[int]] = ()
    decided: str = ""
    drawings: Mapping[str, str] = field(default_factory=dict)

    def decisions(self) -> npt.NDArray[np.int64]:
        """Return the class that each test image was decided to be, ``(images,)``; empty if it was not stored."""
        return np.frombuffer(base64.b64decode(self.decided), dtype="<i4").astype(np.int64)

    def resampled(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return each measure for resampled test images, ``(drawings,)``, by name."""
        stored = self.drawings.items()
        return {name: np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float64) for name, text in stored}

    def correct(self) -> Bools:
        """Return which test images are classified correctly, ``(images,)``."""
        bits = np.frombuffer(base64.b64decode(self.right), dtype=np.uint8)
        return np.unpackbits(bits, count=self.images).astype(bool)


def read_result(folder: Path, key: str | None = None) -> Result | None:
    """Read the result in a run's folder; ``None`` if it is missing, damaged, or of another training than ``key``."""
    from autodistill.training.runtime.durable_files import read_folder

    place = folder / "result"
    if not place.is_dir():
        return None
    try:
        stored = json.loads(read_folder(place)[0]["result.json"])
        tables = {name: tuple(map(tuple, stored.get(name, ()))) for name in ("confusion", "label_counts")}
        result = Result(**{**stored, **tables})
    except (StoreError, KeyError, TypeError, ValueError):
        return None
    return result if key in (None, result.key) else None
