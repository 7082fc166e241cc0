"""Fashion-MNIST (Xiao 2017, arXiv:1708.07747): 70,000 grey images of 28 x 28 pixels in 10 classes.

The images are read from the four IDX files, gzipped or not. If no folder is given, the folder of Debian's package
``dataset-fashion-mnist`` is used if it is installed. Nothing is downloaded.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError
from autodistill.core.records import MULTICLASS, DataSpec
from autodistill.training.data.sources.base import (
    LabelledImages,
    Part,
    check_options,
    class_readers,
    data_sources,
    label_kinds,
    need_root,
)

SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_PREFIX: dict[Part, str] = {"train": "train", "test": "t10k"}
_HOW = (
    "the files train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz. Get them by `apt-get install dataset-fashion-mnist`, or from "
    "https://github.com/zalandoresearch/fashion-mnist, and give their folder as data root"
)


label_kinds.register("fashion_mnist")(MULTICLASS)


@class_readers.register("fashion_mnist")
def garments(spec: DataSpec) -> tuple[str, ...]:
    """Return the class names."""
    del spec
    return CLASSES


@data_sources.register("fashion_mnist")
def fashion_mnist(spec: DataSpec, part: Part, cache_dir: Path) -> LabelledImages:
    """Read the images of one part, ``(60000 or 10000, 1, 28, 28)``, without opening the other part's files."""
    del cache_dir  # not worth caching: decompressing takes a quarter of a second
    check_options(spec)
    if spec.root is None and SYSTEM_FOLDER.is_dir():
        root = SYSTEM_FOLDER
    elif spec.root is None:
        raise DataError(f"Fashion-MNIST is not on this machine. Needed: {_HOW}.")
    else:
        root = need_root(spec, _HOW)
    images = read_idx(_find(root, f"{_PREFIX[part]}-images-idx3-ubyte"))
    labels = read_idx(_find(root, f"{_PREFIX[part]}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(f"{root}: images {images.shape} and labels {labels.shape} do not belong together.")
    return LabelledImages(images[:, None], labels.astype(np.int64), CLASSES)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes: magic ``00 00 08 d``, ``d`` big-endian lengths, then the values.

    Raises:
        DataError: The file is damaged, or holds another type.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} cannot be read ({error}). Fetch it again.") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an IDX file of bytes: it starts with {content[:4].hex(' ')!r}.")
    rank = content[3]
    start = 4 + 4 * rank
    shape = struct.unpack(f">{rank}I", content[4:start]) if len(content) >= start else (0,)
    values = np.frombuffer(content, dtype=np.uint8, offset=min(start, len(content)))
    if len(values) != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path} announces shape {shape} but holds {len(values)} values. Fetch it again.")
    return values.reshape(shape)


def _find(root: Path, name: str) -> Path:
    for path in (root / f"{name}.gz", root / name, root / "FashionMNIST" / "raw" / name):
        if path.is_file():
            return path
    raise DataError(f"{root} has no {name}.gz. Needed: {_HOW}.")
