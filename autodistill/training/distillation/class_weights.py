"""Weights of classes in the task loss, for training images of which some classes have many more than others."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(kind: str, labels: Tensor, classes: int) -> Tensor | None:
    """Return weights ``(classes,)`` whose mean over the training images is 1; ``None`` for ``none``.

    For several labels per image these are the weights of present labels, see :func:`positive_weights`.

    ``balanced``: inversely proportional to the number of images of a class. ``effective``: to its effective number
    ``(1 - b^n) / (1 - b)`` with ``b = (N - 1) / N``, between none and balanced (Cui et al. 2019, "Class-balanced loss
    based on effective number of samples", with N the number of training images).

    Args:
        kind: ``none``, ``balanced`` or ``effective``.
        labels: of the training images, ``(n,)``, or 0 and 1 for each label, ``(n, classes)``.
        classes: number of classes; one without images has weight 0.
    """
    if kind == "none":
        return None
    if labels.ndim == 2:
        return positive_weights(kind, labels)
    counts = torch.bincount(labels.cpu(), minlength=classes).double()
    amounts = _amounts(kind, counts, len(labels))
    weights = torch.where(counts > 0, 1.0 / amounts.clamp_min(1e-12), 0.0)
    return (weights * counts.sum() / (weights * counts).sum()).float()


def positive_weights(kind: str, labels: Tensor) -> Tensor:
    """Return the weight ``(labels,)`` of the presence of each label in binary cross-entropy; absence has weight 1.

    ``balanced``: images without the label over images with it, so that both weigh the same (as in PyTorch's
    documentation of ``BCEWithLogitsLoss``). ``effective``: the ratio of their effective numbers, which lies between
    that and 1 (Cui et al. 2019). A label that no image or every image has keeps weight 1.

    Args:
        kind: ``balanced`` or ``effective``.
        labels: 0 and 1 of the training images, ``(n, labels)``.
    """
    present = labels.cpu().double().sum(0)
    absent = len(labels) - present
    ratio = _amounts(kind, absent, len(labels)) / _amounts(kind, present, len(labels)).clamp_min(1e-12)
    return torch.where((present > 0) & (absent > 0), ratio, 1.0).float()


def _amounts(kind: str, counts: Tensor, images: int) -> Tensor:
    """Return the counts that weights are inversely proportional to: of images, or their effective numbers."""
    if kind != "effective":
        return counts
    base = 1.0 - 1.0 / max(2, images)
    return (1.0 - base**counts) / (1.0 - base)
