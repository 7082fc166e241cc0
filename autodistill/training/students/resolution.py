"""The side of a student's input, which may be smaller than the images of the study: ``student.resolution``.

A setting of every family. Images are decoded, and augmented, at the side of the study; the student alone sees them
smaller, so the teacher's outputs serve students of every resolution. This module loads neither torch nor timm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autodistill.core.errors import InfeasibleError, UsageError

RESOLUTION = "resolution"
LOWEST, HIGHEST = 4, 2048


def side_of(student: Mapping[str, Any], image_size: int) -> int:
    """Return the pixels per side of a student's input.

    Args:
        student: family and parameters.
        image_size: pixels per side of the study's images, which a student without a resolution sees.

    Raises:
        UsageError: The resolution is no whole number of pixels.
        InfeasibleError: The resolution is larger than the images.
    """
    side = resolution_of(student)
    if side is None:
        return image_size
    if side > image_size:
        raise InfeasibleError(f"student.resolution is {side} px, but the images have {image_size} px; choose less.")
    return side


def resolution_of(student: Mapping[str, Any]) -> int | None:
    """Return the resolution in a student's settings; ``None`` if it has none.

    Raises:
        UsageError: It is no whole number of pixels.
    """
    side = student.get(RESOLUTION)
    if side is None:
        return None
    if isinstance(side, bool) or not isinstance(side, int) or not LOWEST <= side <= HIGHEST:
        raise UsageError(f"student.resolution is {side!r}; allowed: a whole number from {LOWEST} to {HIGHEST} pixels.")
    return side


def architecture(student: Mapping[str, Any]) -> dict[str, Any]:
    """Return a student without its resolution: the family and its parameters."""
    return {name: value for name, value in student.items() if name != RESOLUTION}


def own_shape(student: Mapping[str, Any], shape: Mapping[str, int]) -> dict[str, int]:
    """Return ``shape`` with the side of the student's input as its ``image_size``.

    Raises:
        UsageError, InfeasibleError: see :func:`side_of`.
    """
    return {**shape, "image_size": side_of(student, shape["image_size"])}
