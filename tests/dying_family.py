"""A family of networks, the width 8 of which kills the process that trains it; importing this module registers it."""

from __future__ import annotations

import os
import signal
from typing import Any

from torch import Tensor, nn

from autodistill.training.students.families.schema import family, width


class Dying(nn.Module):
    """Kills its process in a training step, and can be counted and measured."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training and len(images) > 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        return images


@family("dying_toy", width(4, 4, 8), kind="convolutional")
def dying_toy(p: Any, shape: Any) -> nn.Module:
    """One convolution and a classifier."""
    start: list[nn.Module] = [Dying()] if p["width"] == 8 else []
    body = [nn.Conv2d(shape.channels, p["width"], 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*start, *body, nn.Linear(p["width"], shape.num_classes))
