"""Counter-based random numbers: a number is a function of (seed, image, view, slot) and of nothing else.

There is no generator state to save or share. Any process on any device can compute the numbers of any view at any time,
whatever else is in the batch. The mixing function is the finaliser of SplitMix64 (Steele 2014, "Fast splittable
pseudorandom number generators"), applied once per part of the key. Not for cryptography.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_BITS = 24  # a float32 in [0, 1) represents 24 bits exactly, on every device


def signed(value: int) -> int:
    """Return the low 64 bits of ``value`` as the signed integer that an int64 tensor holds."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


class Draws:
    """Random numbers of a batch of views.

    Args:
        seed: seed of the study's views; any integer.
        ids: (batch,) integer ids of the images; the numbers are on its device.
        view: number of the view, the same for the whole batch or (batch,) one for each image.
    """

    def __init__(self, seed: int, ids: Tensor, view: int | Tensor) -> None:
        start = _mix(torch.full((), signed(seed), dtype=torch.int64, device=ids.device))
        views = torch.as_tensor(view, dtype=torch.int64, device=ids.device)
        self._key = _mix(_mix(start ^ ids.to(torch.int64)) ^ _mix(views))

    def bits(self, slot: int) -> Tensor:
        """Return (batch,) int64 numbers of 64 random bits; each use must have its own slot."""
        return _mix(self._key + signed(_GOLDEN * (slot + 1)))

    def uniform(self, slot: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return (batch,) float32 numbers in [low, high)."""
        unit = ((self.bits(slot) >> (64 - _BITS)) & ((1 << _BITS) - 1)).to(torch.float32) / (1 << _BITS)
        return low + (high - low) * unit

    def integer(self, slot: int, count: int) -> Tensor:
        """Return (batch,) int64 numbers from 0 to ``count`` - 1."""
        return (((self.bits(slot) >> 32) & 0xFFFFFFFF) * count) >> 32


def _mix(value: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser; int64 arithmetic wraps, and masks make the right shifts logical."""
    value = value + signed(_GOLDEN)
    value = (value ^ ((value >> 30) & ((1 << 34) - 1))) * signed(0xBF58476D1CE4E5B9)
    value = (value ^ ((value >> 27) & ((1 << 37) - 1))) * signed(0x94D049BB133111EB)
    return value ^ ((value >> 31) & ((1 << 33) - 1))
