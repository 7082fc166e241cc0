"""Pixel operations on batches of images, with one strength per image.

All functions are pure and work on the device of their input. They treat each image separately, so the result for an
image does not depend on the rest of the batch. ``policy.py`` draws the strengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts RGB to grey


def shift_flip(images: Tensor, rows: Tensor, columns: Tensor, flip: Tensor, pad: tuple[int, int]) -> Tensor:
    """Crop the zero-padded images and optionally mirror them.

    Implemented as an integer gather, which is exact in any dtype.

    Args:
        images: (batch, channels, height, width).
        rows: (batch,) first row of the crop in the padded image, 0 to 2 x pad.
        columns: (batch,) first column of the crop.
        flip: (batch,) bool, mirror left to right.
        pad: zeros added on each side, (rows, columns).

    Returns:
        Crops of the shape of ``images``.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, (pad[1], pad[1], pad[0], pad[0]))
    y = rows[:, None] + torch.arange(height, device=images.device)
    x = columns[:, None] + torch.arange(width, device=images.device)
    x = torch.where(flip[:, None], x.flip(1), x)
    index = (y[:, :, None] * (width + 2 * pad[1]) + x[:, None, :]).view(batch, 1, height * width)
    flat = padded.flatten(2).gather(2, index.expand(batch, channels, -1))
    return flat.view(batch, channels, height, width)


@dataclass(frozen=True)
class Affine:
    """Affine maps from output to input coordinates in [-1, 1], one per image; each field is (batch,).

    Output point (u, v) maps to input point (xx·u + xy·v + x, yx·u + yy·v + y). Maps are composed by elementwise
    arithmetic, because a batched matrix product may round differently for another batch size.
    """

    xx: Tensor
    xy: Tensor
    x: Tensor
    yx: Tensor
    yy: Tensor
    y: Tensor

    @staticmethod
    def identity(batch: int, device: torch.device) -> Affine:
        """Return the identity map."""
        one, zero = torch.ones(batch, device=device), torch.zeros(batch, device=device)
        return Affine(one, zero, zero, zero, one, zero)

    def after(self, first: Affine) -> Affine:
        """Return the composition that maps output coordinates by ``first`` and then by this map."""
        return Affine(
            self.xx * first.xx + self.xy * first.yx,
            self.xx * first.xy + self.xy * first.yy,
            self.xx * first.x + self.xy * first.y + self.x,
            self.yx * first.xx + self.yy * first.yx,
            self.yx * first.xy + self.yy * first.yy,
            self.yx * first.x + self.yy * first.y + self.y,
        )

    def sample(self, images: Tensor) -> Tensor:
        """Sample float ``images`` (batch, channels, height, width) bilinearly; pixels outside are black."""
        x, y = torch.stack([self.xx, self.xy, self.x], 1), torch.stack([self.yx, self.yy, self.y], 1)
        grid = F.affine_grid(torch.stack([x, y], 1), list(images.shape), align_corners=False)
        sampled = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        # padding_mode="zeros" would also darken the area between the outermost pixel centres and the edge.
        return sampled * (grid.abs() <= 1).all(3)[:, None]


def _spread(value: Tensor) -> Tensor:
    return value[:, None, None, None]


def _mean(images: Tensor, dims: tuple[int, ...]) -> Tensor:
    # In double precision, because the order of summation depends on the batch and must not change the float32 result.
    return images.double().mean(dims, keepdim=True).to(images.dtype)


def grey(images: Tensor) -> Tensor:
    """Return the luma (batch, 1, height, width) of float images: BT.601 for three channels, else the channels' mean."""
    if images.shape[1] == 3:
        return images[:, 0:1] * _LUMA[0] + images[:, 1:2] * _LUMA[1] + images[:, 2:3] * _LUMA[2]
    return images.mean(1, keepdim=True)


def _towards(images: Tensor, base: Tensor | float, factor: Tensor) -> Tensor:
    """Scale the distance of ``images`` from ``base`` by ``factor`` (batch,), clamped to [0, 1]."""
    return (base + (images - base) * _spread(factor)).clamp(0, 1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the values by ``factor`` (batch,)."""
    return _towards(images, 0.0, factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from the image's mean luma by ``factor`` (batch,)."""
    return _towards(images, _mean(grey(images), (1, 2, 3)), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from grey by ``factor`` (batch,); a grey image is returned unchanged."""
    return images if images.shape[1] == 1 else _towards(images, grey(images), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from the 3 x 3 mean by ``factor`` (batch,)."""
    return _towards(images, F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False), factor)


def solarize(images: Tensor, factor: Tensor) -> Tensor:
    """Invert values above the threshold 1 - ``|factor - 1|``; ``factor`` is (batch,)."""
    return torch.where(images > _spread(1 - (factor - 1).abs()), 1 - images, images)


def posterize(images: Tensor, factor: Tensor) -> Tensor:
    """Reduce the number of grey levels: 256 if ``factor`` (batch,) is 1, down to 4 if it is 0 or 2."""
    levels = torch.exp2((8 - 6 * (factor - 1).abs()).round())
    return ((images * _spread(levels)).floor() / _spread(levels - 1)).clamp(0, 1)


def autocontrast(images: Tensor, factor: Tensor) -> Tensor:
    """Stretch each channel to the full range; ``factor`` is ignored, and a constant channel stays unchanged."""
    del factor
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp_min(1e-6), images).clamp(0, 1)


COLOUR_OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    brightness,
    contrast,
    saturation,
    sharpness,
    solarize,
    posterize,
    autocontrast,
)
"""Colour operations of a RandAugment-like policy (arXiv 1909.13719).

Each takes images and a factor (batch,). A factor of 1 changes nothing, except for ``autocontrast``.
"""

GEOMETRIC_OPERATIONS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def geometric(kind: Tensor, amount: Tensor, aspect: float) -> Affine:
    """Return the affine maps of one geometric operation per image.

    Args:
        kind: (batch,) index into ``GEOMETRIC_OPERATIONS``; other values give the identity.
        amount: (batch,) strength in [-1, 1]. A strength of 1 means 30 degrees, a shear of 0.3, or a shift by 0.3 of the
            side.
        aspect: width over height of the images; needed so that a rotation preserves angles.
    """

    def where(index: int, value: Tensor) -> Tensor:
        return torch.where(kind == index, value, torch.zeros_like(value))

    angle = where(0, amount) * math.radians(30)
    cosine, sine = angle.cos(), angle.sin()
    return Affine(
        cosine,
        -sine / aspect + where(1, 0.3 * amount),
        where(3, 0.6 * amount),
        sine * aspect + where(2, 0.3 * amount),
        cosine,
        where(4, 0.6 * amount),
    )


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Fill a rectangle of each image with its channel means.

    Args:
        images: (batch, channels, height, width) floats.
        boxes: (batch, 4) top, left, bottom, right in [0, 1]; an empty box erases nothing.
    """
    return torch.where(inside(boxes, images.shape[2], images.shape[3]), _mean(images, (2, 3)), images)


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return which pixel centres lie in the boxes (batch, 4), as bool (batch, 1, height, width)."""
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    rows = (y >= boxes[:, 0:1]) & (y < boxes[:, 2:3])
    columns = (x >= boxes[:, 1:2]) & (x < boxes[:, 3:4])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images to ``size`` x ``size`` pixels bilinearly, with antialiasing when they shrink."""
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
