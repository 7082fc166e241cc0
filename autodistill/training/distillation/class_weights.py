"""Weights of classes in the task loss, for training images of which some classes have many more than others."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(kind: str, labels: Tensor, classes: int) -> Tensor | None:
    """Return weights ``(classes,)`` whose mean over the training images is 1; ``None`` for ``none``.

    ``balanced``: inversely proportional to the number of images of a class. ``effective``: to its effective number
    ``(1 - b^n) / (1 - b)`` with ``b = (N - 1) / N``, between none and balanced (Cui et al. 2019, "Class-balanced loss
    based on effective number of samples", with N the number of training images).

    Args:
        kind: ``none``, ``balanced`` or ``effective``.
        labels: of the training images, ``(n,)``.
        classes: number of classes; one without images has weight 0.
    """
    if kind == "none":
        return None
    counts = torch.bincount(labels.cpu(), minlength=classes).double()
    if kind == "effective":
        ratio = 1.0 - 1.0 / max(2, len(labels))
        amounts = (1.0 - ratio**counts) / (1.0 - ratio)
    else:
        amounts = counts
    weights = torch.where(counts > 0, 1.0 / amounts.clamp_min(1e-12), 0.0)
    return (weights * counts.sum() / (weights * counts).sum()).float()
