"""Variants of a student: what each is, and what was measured of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autodistill.core.errors import StoreError, UnknownNameError, UsageError
from autodistill.search.objectives.pareto import nondominated_mask
from autodistill.search.storage.study_folder import dump_json, write_atomically

COMPRESS_FILE = "compress.json"
METHODS = ("int8-static", "int8-dynamic", "fp16", "weights", "channels")
"""``weights`` and ``channels`` are pruning, unstructured and structured; they take ratios and are fine-tuned."""
PRUNING = ("weights", "channels")


@dataclass(frozen=True)
class Variant:
    """One smaller form of a student, as an ONNX file; or why there is none.

    Attributes:
        name: ``fp32`` for the student itself, a method, or a method and its ratio: ``channels-0.5``.
        state: ``ok``, or ``failed`` with the reason in ``remark``.
        file: its ONNX file, from the study's folder.
        accuracy: on the validation split; ``drop`` is what the student itself has more.
        params: of the deployed form; ``nonzero`` of them are not zero.
        macs: multiply-accumulate operations per image; zeros are counted, as runtimes compute them.
        bytes: of the file; ``zipped`` after compression, which is where zeros count.
        latency_ms: p50 per batch of the file; ``None`` where it was not measured.
        front: on the joint front of the study's own students and all variants that do not lose too much accuracy.
        weights: where those of its student are from, ``search`` or ``verified``.
        key: of the settings it was made with; empty where something was missing that may be there another time.
        seconds: it took.
    """

    name: str
    state: Literal["ok", "failed"]
    file: str = ""
    accuracy: float | None = None
    drop: float | None = None
    params: float | None = None
    nonzero: float | None = None
    macs: float | None = None
    bytes: int = 0
    zipped: int = 0
    latency_ms: float | None = None
    front: bool = False
    weights: str = ""
    key: str = ""
    seconds: float = 0.0
    remark: str = ""

    def loses(self, max_drop: float) -> bool:
        """Whether it is less accurate than the student by more than ``max_drop``."""
        return self.drop is not None and self.drop > max_drop + 1e-12


def variant_names(methods: Sequence[str], ratios: Sequence[float]) -> list[str]:
    """``fp32`` and the variants that were asked for.

    Raises:
        UnknownNameError: no such method.
        UsageError: a ratio that is no share.
    """
    for ratio in ratios:
        if not 0 < ratio < 1:
            raise UsageError(f"a pruning ratio is {ratio:g}; give shares between 0 and 1, e.g. 0.3,0.5,0.7.")
    out = ["fp32"]
    for method in methods:
        if method not in METHODS:
            raise UnknownNameError("method of compression", method, METHODS)
        out += [f"{method}-{ratio:g}" for ratio in ratios] if method in PRUNING else [method]
    return list(dict.fromkeys(out))


def split_name(name: str) -> tuple[str, float]:
    """Method and ratio of a variant."""
    method, _, ratio = name.rpartition("-")
    return (method, float(ratio)) if method in PRUNING else (name, 0.0)


def joint_front(points: Mapping[str, Sequence[float]]) -> set[str]:
    """Names of the points that none beats: ``(accuracy, costs …)``, more accuracy and less of the others is better."""
    if not points:
        return set()
    losses = np.array([[-values[0], *values[1:]] for values in points.values()], dtype=float)
    return {name for name, best in zip(points, nondominated_mask(losses), strict=True) if best}


def read_compressed(directory: str | Path, trial: int) -> list[Variant]:
    """What an earlier ``compress`` of a trial made; empty where there was none.

    Raises:
        StoreError: the file is damaged.
    """
    found = _read(Path(directory)).get(str(trial), [])
    known = {one.name for one in fields(Variant)}
    return [Variant(**{key: value for key, value in row.items() if key in known}) for row in found]


def save_compressed(directory: Path, trial: int, variants: Sequence[Variant]) -> None:
    """Keep the variants of a trial in ``compress.json``; other trials' stay."""
    found = {**_read(directory), str(trial): [asdict(one) for one in variants]}
    write_atomically(directory / COMPRESS_FILE, dump_json({"format": 1, "trials": found}))


def _read(directory: Path) -> dict[str, Any]:
    path = directory / COMPRESS_FILE
    if not path.is_file():
        return {}
    try:
        trials: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["trials"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read: {error}. Remove it, and compress again.") from error
    return trials
