"""One image file as 8-bit pixels: upright, on white where it is transparent, scaled to a square.

Files are opened by their content (a file called ``.png`` that holds PostScript would otherwise start Ghostscript) and
refused above a pixel limit before they are decoded. ``delivery/export/templates/predict.py.txt`` does the same without
autodistill: what changes here has to change there, and ``DECODER`` with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError
from autodistill.training.data.sources.square import to_square

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF")
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"},
)
DECODER = 2
"""Part of the name of decoded images on disk: another number where the same file gives other pixels."""

MAX_PIXELS = 64_000_000
_REASON = 120  # letters of what a decoder says
_BITS_PER_SAMPLE = 258  # tag of TIFF


def decode(path: Path, size: int, *, mode: str, limit: int = MAX_PIXELS, resize: str = "crop") -> NDArray[np.uint8]:
    """One image, upright, made square as ``resize`` says (``square.py``): ``(channels, size, size)``.

    Grey of more than 8 bits is scaled by the largest value of its format: 65535, of 12-bit TIFF 4095, of floats 1.

    Raises:
        DataError: it has more than ``limit`` pixels, or values beyond those of its format.
        OSError: it is damaged, or none of the allowed formats.
    """
    from PIL import Image, ImageOps

    with path.open("rb") as file, Image.open(file, formats=FORMATS) as picture:
        width, height = picture.size
        if width * height > limit:
            raise DataError(f"{width} x {height} pixels; allowed: {limit:,} in all (option max_pixels)")
        picture.draft(mode, (size, size))  # lets the JPEG decoder skip detail that is thrown away anyway
        picture.load()  # turns TIFF upright by itself
        most = _largest(picture)
        flat = _on_white(_eight_bits(ImageOps.exif_transpose(picture), most)).convert(mode)
        scaled = to_square(flat, size, resize)
    pixels = np.asarray(scaled, dtype=np.uint8)
    return pixels[None] if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def reason(error: Exception) -> str:
    """Why an image cannot be read, in a few words."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"  # its own words are a file object
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return said if isinstance(error, (DataError, OSError)) else f"{type(error).__name__}: {said}"[:_REASON]


def _largest(picture: Any) -> int:
    """The value of white: 255, or that of grey with more bits."""
    if picture.mode == "F":
        return 1
    if not picture.mode.startswith("I"):
        return 255
    bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
    return 4095 if bits == 12 else 65535  # also of 32 bits, in which 16 are kept: PGM


def _eight_bits(image: Any, most: int) -> Any:
    """Grey of more bits than 8 with the values 0 to ``most``, in 8; anything else as it is."""
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
