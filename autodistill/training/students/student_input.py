"""The input of a student: images resized to its side, and normalized.

Training, evaluation, calibration and export all use this one conversion, and ``predict.py`` repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autodistill.training.augmentation.operations import resize

Images = NDArray[np.float32]

DECODED = "decoded_size"
"""Fact of a student that sees smaller images than those of the study: their side, to which images are brought first."""


@dataclass(frozen=True)
class StudentInput:
    """What a student is given.

    Attributes:
        image_size: pixels per side.
        mean: mean per channel, of pixels in [0, 1].
        std: standard deviation per channel, of pixels in [0, 1].
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> StudentInput:
        """Return the input that the facts of a finished student state."""
        return cls(int(facts["image_size"]), tuple(facts["mean"]), tuple(facts["std"]))

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Convert pixels in [0, 1], ``(n, channels, side, side)`` of any side, to the student's input.

        They are resized bilinearly, with antialiasing when they shrink; images of the right size are left as they are.
        """
        shape = (1, -1, 1, 1)
        mean, std = (torch.tensor(one, device=pixels.device).view(shape) for one in (self.mean, self.std))
        return (resize(pixels, self.image_size) - mean) / std

    def of_images(self, images: NDArray[np.uint8]) -> Images:
        """Convert ``uint8`` images ``(n, channels, side, side)`` to the student's input."""
        shape = (1, -1, 1, 1)
        mean, std = (np.asarray(one, dtype=np.float32).reshape(shape) for one in (self.mean, self.std))
        pixels = images.astype(np.float32) / np.float32(255)
        if images.shape[-1] != self.image_size:
            pixels = resize(torch.from_numpy(pixels), self.image_size).numpy()
        return np.asarray((pixels - mean) / std, dtype=np.float32)
