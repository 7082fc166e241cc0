"""Unlabelled images of a training, and the order in which its batches take them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autodistill.core.records import derive_seed
from autodistill.training.data.unlabelled import UnlabelledImages


@dataclass(frozen=True, eq=False)
class UnlabelledFeed:
    """Unlabelled training images.

    Attributes:
        images: ``uint8 (n, channels, side, side)``.
        ids: ``int64 (n,)``, on the device of ``images``; different from those of the labelled images.
    """

    images: Tensor
    ids: Tensor

    @classmethod
    def of(cls, found: UnlabelledImages | None) -> UnlabelledFeed | None:
        """Return the images without copying them; ``None`` if there are none."""
        return None if found is None else cls(torch.from_numpy(found.images), torch.from_numpy(found.ids))

    def to(self, device: torch.device) -> UnlabelledFeed:
        """Move the images to a device."""
        return UnlabelledFeed(self.images.to(device), self.ids.to(device))


class UnlabelledRows:
    """The rows of unlabelled images of each step: pass after pass, each in an order of its own.

    The rows are a function of seed and step, so that a resumed training takes the same ones. As with labelled images, a
    pass leaves out the images that do not fill a batch.

    Args:
        available: number of unlabelled images.
        ratio: unlabelled images per labelled image, above 0.
        batch_size: labelled images in a batch.
        seed: seed of the training.

    Attributes:
        size: unlabelled images in a batch; at least 1 and at most all.
    """

    def __init__(self, available: int, ratio: float, *, batch_size: int, seed: int) -> None:
        self.size = min(max(1, round(ratio * batch_size)), available)
        self._available, self._seed = available, seed
        self._order, self._ordered = torch.empty(0, dtype=torch.int64), -1

    def at(self, step: int) -> tuple[Tensor, int]:
        """Return the rows ``(size,)`` of a step, and the number of its pass over the images, from 0."""
        number, index = divmod(step, self._available // self.size)
        if number != self._ordered:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, number, "unlabelled"))
            self._order, self._ordered = torch.randperm(self._available, generator=generator), number
        return self._order[index * self.size : (index + 1) * self.size], number
