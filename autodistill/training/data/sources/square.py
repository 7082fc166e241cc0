"""Makes images square by cropping, squashing or padding, and measures how much cropping would remove.

``delivery/export/templates/predict.py.txt`` does the same without autodistill: a change here must be made there too.
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
"""Grey level (of 255) of letterbox borders: the mean of ImageNet's three channels, also used by YOLO detectors."""

MUCH = 0.1
"""Share of the pixels that cropping may remove, on average over the images, without a warning."""

_SAMPLED = 5000  # files whose header is read; takes a fraction of a second


def check_resize(resize: str) -> None:
    """Check the name of a way to make images square.

    Raises:
        UnknownNameError: The name does not exist. The message lists the nearest names first.
    """
    if resize not in get_args(Resize):
        raise UnknownNameError("data.resize", resize, get_args(Resize))


def to_square(image: Any, side: int, resize: str) -> Any:
    """Scale a Pillow image to ``side x side`` pixels, bicubically with antialiasing.

    Args:
        image: grey or RGB, of any shape.
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
    """Apply :func:`to_square` to each image of ``uint8 (n, channels, h, w)``; return ``(n, channels, side, side)``."""
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
        sizes: ``(n, 2)``, width and height in pixels, of all images or of a sample.
        total: number of all images.
    """

    sizes: NDArray[np.int64]
    total: int

    def cut_warning(self) -> str:
        """Return a warning if cropping removes more than ``MUCH`` of the pixels on average; otherwise an empty text."""
        lost = 1 - self.sizes.min(1) / self.sizes.max(1)
        if not len(lost) or lost.mean() <= MUCH:
            return ""
        sampled = "" if len(lost) == self.total else " checked"
        return (
            f"images are not square: cropping them (data.resize: crop) cuts off {lost.mean():.0%} of their pixels on "
            f"average; {int((lost > MUCH).sum()):,} of {len(lost):,} images{sampled} lose more than a tenth. Nothing "
            "is cut off by --resize squash (proportions change) and --resize letterbox (grey borders)."
        )


def shapes_of(files: Sequence[Path], formats: tuple[str, ...]) -> Shapes:
    """Read image sizes from the headers of at most 5,000 files, evenly spaced; unreadable files are left out."""
    step = max(1, -(-len(files) // _SAMPLED))

    def one(path: Path) -> tuple[int, int] | None:
        from PIL import Image

        try:
            with path.open("rb") as file, Image.open(file, formats=formats) as picture:
                return picture.size
        except Exception:  # Pillow's decoders raise many types; decoding reports the file
            return None

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        sizes = [size for size in pool.map(one, files[::step]) if size is not None]
    return Shapes(np.asarray(sizes, dtype=np.int64).reshape(-1, 2), len(files))
