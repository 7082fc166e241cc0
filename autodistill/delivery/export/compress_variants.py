"""Compressed variants of a student: their names, measurements and storage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from autodistill.core.errors import StoreError, UnknownNameError, UsageError
from autodistill.delivery.export.checks import MeasuredFile
from autodistill.search.objectives.pareto import nondominated_mask
from autodistill.search.storage.study_folder import dump_json, write_atomically

COMPRESS_FILE = "compress.json"
METHODS = ("int8-static", "int8-dynamic", "fp16", "weights", "channels")
"""``weights`` is unstructured and ``channels`` structured pruning; both take ratios and are fine-tuned."""
PRUNING = ("weights", "channels")


@dataclass(frozen=True)
class Variant(MeasuredFile):
    """One compressed form of a student as an ONNX file, or the reason why it could not be made.

    Attributes:
        name: ``fp32`` for the student itself, a method, or a method and its ratio, e.g. ``channels-0.5``.
        params: number of parameters of the deployed form.
        nonzero: number of these parameters that are not zero.
        macs: multiply-accumulate operations per image; those with zeros count, because runtimes compute them.
        zipped: size of the file after compression, which zeros reduce.
        front: whether it is on the joint front of the study's students and all variants that do not lose too much
            accuracy.
        weights: origin of the student's weights, ``search`` or ``verified``.
        key: key of the settings; empty if making it failed for lack of a resource, so that it is tried again.
        seconds: time that it took to make the variant.
    """

    name: str
    params: float | None = None
    nonzero: float | None = None
    macs: float | None = None
    zipped: int = 0
    front: bool = False
    weights: str = ""
    key: str = ""
    seconds: float = 0.0


def variant_names(methods: Sequence[str], ratios: Sequence[float]) -> list[str]:
    """Return ``fp32`` and the names of the requested variants.

    Raises:
        UnknownNameError: a method does not exist.
        UsageError: a ratio is not between 0 and 1.
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
    """Split the name of a variant into method and ratio; the ratio is 0 for methods without one."""
    method, _, ratio = name.rpartition("-")
    return (method, float(ratio)) if method in PRUNING else (name, 0.0)


def joint_front(points: Mapping[str, Sequence[float]]) -> set[str]:
    """Return the names of the nondominated points ``(accuracy, costs …)``: high accuracy and low costs are better."""
    if not points:
        return set()
    losses = np.array([[-values[0], *values[1:]] for values in points.values()], dtype=float)
    return {name for name, best in zip(points, nondominated_mask(losses), strict=True) if best}


def read_compressed(directory: str | Path, trial: int) -> list[Variant]:
    """Read the variants that earlier calls of ``compress`` made of a trial; empty if there are none.

    Raises:
        StoreError: the file is damaged.
    """
    found = _read(Path(directory)).get(str(trial), [])
    known = {one.name for one in fields(Variant)}
    return [Variant(**{key: value for key, value in row.items() if key in known}) for row in found]


def save_compressed(directory: Path, trial: int, variants: Sequence[Variant]) -> None:
    """Write the variants of a trial to ``compress.json``; those of other trials are kept."""
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
