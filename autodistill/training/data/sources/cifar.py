"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): colour images of 32 x 32 pixels, from the *binary* version.

The widespread "python version" is refused: it consists of pickles, which can run code when they are opened. A record of
the binary version is one label byte (CIFAR-100: two, coarse then fine) and 3,072 pixel bytes, one colour plane after
the other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autodistill.core.errors import DataError
from autodistill.core.records import MULTICLASS, DataSpec
from autodistill.training.data.sources.base import (
    LabelledImages,
    Part,
    check_options,
    data_sources,
    label_kinds,
    need_root,
)

_PIXELS = 3 * 32 * 32
_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


for _name in ("cifar10", "cifar100"):
    label_kinds.register(_name)(MULTICLASS)


@data_sources.register("cifar10")
def cifar10(spec: DataSpec, part: Part, cache_dir: Path) -> LabelledImages:
    """Read the images of one part, ``(50000 or 10000, 3, 32, 32)``."""
    del cache_dir
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] if part == "train" else ["test_batch.bin"]
    return _read(spec, names, folder="cifar-10-batches-bin", label_bytes=1, meta="batches.meta.txt")


@data_sources.register("cifar100")
def cifar100(spec: DataSpec, part: Part, cache_dir: Path) -> LabelledImages:
    """Read the images of one part with fine labels, ``(50000 or 10000, 3, 32, 32)``."""
    del cache_dir
    return _read(spec, [f"{part}.bin"], folder="cifar-100-binary", label_bytes=2, meta="fine_label_names.txt")


def _read(spec: DataSpec, names: list[str], *, folder: str, label_bytes: int, meta: str) -> LabelledImages:
    check_options(spec)
    root = need_root(spec, f"{folder}/ with {', '.join(names)}, the binary version from {_PAGE}")
    root = root / folder if (root / folder).is_dir() else root
    records = np.concatenate([_records(root / name, label_bytes) for name in names])
    classes = _class_names(root / meta, int(records[:, label_bytes - 1].max()))
    labels = records[:, label_bytes - 1].astype(np.int64)
    images = np.ascontiguousarray(records[:, label_bytes:]).reshape(-1, 3, 32, 32)
    return LabelledImages(images, labels, classes)


def _records(path: Path, label_bytes: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    if not path.is_file():
        pickles = [name for name in (path.stem, "data_batch_1", "train") if (path.parent / name).is_file()]
        found = f" Found {pickles[0]!r}: that is the python version, whose pickles are not opened." if pickles else ""
        raise DataError(f"{path} does not exist.{found} Get the binary version from {_PAGE}.")
    size, record = path.stat().st_size, label_bytes + _PIXELS
    if size == 0 or size % record:
        raise DataError(f"{path} has {size} bytes, not a multiple of {record}; it is damaged. Fetch it again.")
    return np.fromfile(path, dtype=np.uint8).reshape(-1, record)


def _class_names(path: Path, highest: int) -> tuple[str, ...]:
    names = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return tuple(names) if len(names) > highest else tuple(str(label) for label in range(highest + 1))
