"""Images that are not square: cropped, squashed or padded; and how much cropping takes away.

``delivery/export/templates/predict.py.txt`` does the same without autodistill: what changes here has to change there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import UnknownNameError
from autodistill.core.records import Resize

PADDING = 114
"""Grey level (of 255) of a letterbox's borders: the mean of ImageNet's three channels, as YOLO detectors pad."""

MUCH = 0.1
"""Share of the pixels that may be cut off, in the mean, before the search says so."""

_LOOKED_AT = 5000  # files whose size is read; a fraction of a second


def check_resize(resize: str) -> None:
    """Refuse a way to make images square that does not exist.

    Raises:
        UnknownNameError: the nearest come first.
    """
    if resize not in get_args(Resize):
        raise UnknownNameError("data.resize", resize, get_args(Resize))


def to_square(image: Any, side: int, resize: str) -> Any:
    """A Pillow image, grey or RGB, as one of ``side x side`` pixels, scaled bicubically with antialiasing.

    Args:
        image: of any shape.
        side: pixels per side.
        resize: ``crop`` scales the shorter side and cuts off both ends of the longer one; ``squash`` scales both
            sides and so changes the proportions; ``letterbox`` scales the longer side and fills the rest with
            ``PADDING`` on both sides.
    """
    from PIL import Image, ImageOps

    if resize == "squash":
        return image.resize((side, side), Image.Resampling.BICUBIC)
    if resize == "letterbox":
        longest = max(image.size)
        width, height = (max(1, round(length * side / longest)) for length in image.size)
        out = Image.new(image.mode, (side, side), (PADDING,) * len(image.getbands()))
        scaled = image.resize((width, height), Image.Resampling.BICUBIC)
        out.paste(scaled, ((side - width) // 2, (side - height) // 2))
        return out
    return ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)


def square_arrays(images: NDArray[np.uint8], side: int, resize: str) -> NDArray[np.uint8]:
    """``uint8 (n, channels, height, width)`` as ``(n, channels, side, side)``, each image as by :func:`to_square`."""
    from PIL import Image

    out = np.empty((*images.shape[:2], side, side), dtype=np.uint8)
    for row, pixels in zip(out, images, strict=True):
        grey = len(pixels) == 1
        picture = Image.fromarray(np.ascontiguousarray(pixels[0] if grey else pixels.transpose(1, 2, 0)))
        squared = np.asarray(to_square(picture, side, resize))
        row[:] = squared[None] if grey else squared.transpose(2, 0, 1)
    return out


@dataclass(frozen=True)
class Shapes:
    """Widths and heights of some images.

    Attributes:
        sizes: ``(n, 2)``, pixels.
        total: number of images that there are.
    """

    sizes: NDArray[np.int64]
    total: int

    def cut(self) -> str:
        """What is said where cropping takes away more than ``MUCH`` of the pixels in the mean; else nothing."""
        lost = 1 - self.sizes.min(1) / self.sizes.max(1)
        if not len(lost) or lost.mean() <= MUCH:
            return ""
        looked = "" if len(lost) == self.total else " that were looked at"
        return (
            f"images are not square: cropping them (data.resize: crop) cuts off {lost.mean():.0%} of their pixels in "
            f"the mean; {int((lost > MUCH).sum()):,} of {len(lost):,} images{looked} lose more than a tenth. Nothing "
            "is cut off by --resize squash (proportions change) and --resize letterbox (grey borders)."
        )


def shapes_of(files: Sequence[Path], formats: tuple[str, ...]) -> Shapes:
    """Sizes by the headers of at most 5,000 of the files, from all over; those that cannot be read are left out."""
    step = max(1, -(-len(files) // _LOOKED_AT))

    def one(path: Path) -> tuple[int, int] | None:
        from PIL import Image

        try:
            with path.open("rb") as file, Image.open(file, formats=formats) as picture:
                return picture.size
        except Exception:  # Pillow's decoders raise anything; decoding says which file it is
            return None

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        sizes = [size for size in pool.map(one, files[::step]) if size is not None]
    return Shapes(np.asarray(sizes, dtype=np.int64).reshape(-1, 2), len(files))
