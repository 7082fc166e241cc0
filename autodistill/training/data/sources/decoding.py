"""Decodes one image file to 8-bit pixels: upright, transparent parts on white, scaled to a square.

Only the formats listed in ``FORMATS`` are opened, whatever the file's suffix: Pillow would start Ghostscript for
PostScript content in a file called ``.png``. Files above a pixel limit are refused before they are decoded.
``delivery/export/templates/predict.py.txt`` does the same without autodistill: a change here must be made there too,
and ``DECODER`` must be raised.
"""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError, first_line
from autodistill.training.data.sources.square import to_square

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF")
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"},
)
DECODER = 2
"""Version of the decoder, part of the cache key of decoded images. Raise it when a file gives different pixels."""

MAX_PIXELS = 64_000_000
_REASON_LENGTH = 120  # characters of a decoder's error message that are repeated
_BITS_PER_SAMPLE = 258  # TIFF tag


def decode(
    source: Path | bytes, size: int, *, mode: str, limit: int = MAX_PIXELS, resize: str = "crop"
) -> NDArray[np.uint8]:
    """Decode one image file to a square array; see :func:`decode_sized`."""
    return decode_sized(source, size, mode=mode, limit=limit, resize=resize)[0]


def decode_sized(
    source: Path | bytes, size: int, *, mode: str, limit: int = MAX_PIXELS, resize: str = "crop"
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode one image file to a square array.

    Grey values of more than 8 bits are divided by the largest value of their format: 65535, for 12-bit TIFF 4095, for
    floats 1.

    Args:
        source: the image file, or its content.
        size: pixels per side of the result.
        mode: Pillow mode of the result, ``L`` (grey) or ``RGB``.
        limit: largest allowed number of pixels in the file.
        resize: how the image becomes square, see :func:`~autodistill.training.data.sources.square.to_square`.

    Returns:
        ``uint8 (channels, size, size)``, and width and height of the file's image.

    Raises:
        DataError: The image has more than ``limit`` pixels, or values outside the range of its format, or the path is
            not a regular file.
        OSError: The file is damaged, or its format is not allowed.
    """
    from PIL import Image, ImageOps

    with _opened(source) as file, Image.open(file, formats=FORMATS) as picture:
        width, height = picture.size
        if width * height > limit:
            raise DataError(f"{width} x {height} pixels; allowed: {limit:,} in all (option max_pixels)")
        picture.draft(mode, (size, size))  # lets the JPEG decoder skip detail that scaling would discard
        picture.load()  # for TIFF, this also applies the orientation
        most = _largest(picture)
        flat = _on_white(_eight_bits(ImageOps.exif_transpose(picture), most)).convert(mode)
        scaled = to_square(flat, size, resize)
    pixels = np.asarray(scaled, dtype=np.uint8)
    return pixels[None] if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1)), (width, height)


def _opened(source: Path | bytes) -> BinaryIO:
    """Open a file or its content for reading; a named pipe is refused, since opening it would wait for ever."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not stat.S_ISREG(source.stat().st_mode):
        raise DataError("not a regular file")
    return source.open("rb")


def reason(error: Exception) -> str:
    """Return in a few words why an image cannot be read."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"  # Pillow's own message only prints a file object
    line = first_line(error, limit=None)
    return line if isinstance(error, (DataError, OSError)) else f"{type(error).__name__}: {line}"[:_REASON_LENGTH]


def _largest(picture: Any) -> int:
    """Return the value of white in the picture's format: 255, or more for grey of more than 8 bits."""
    if picture.mode == "F":
        return 1
    if not picture.mode.startswith("I"):
        return 255
    bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
    return 4095 if bits == 12 else 65535  # also for mode I (32 bits), in which Pillow keeps 16-bit PGM


def _eight_bits(image: Any, most: int) -> Any:
    """Convert grey values from 0 to ``most`` to 8 bits; return an 8-bit image (``most`` 255) unchanged."""
    from PIL import Image

    if most == 255:
        return image
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= most:
        raise DataError(f"values from {low:g} to {high:g}; allowed: 0 to {most}")
    return Image.fromarray(np.rint(np.multiply(values, 255 / most, dtype=np.float32)).astype(np.uint8))


def _on_white(image: Any) -> Any:
    from PIL import Image

    if not image.has_transparency_data:
        return image
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
