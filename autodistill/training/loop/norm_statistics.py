"""Statistics of BatchNorm layers, taken anew from training images for the weights that are evaluated.

A running statistic begins at 0 or 1 and follows the weights of past steps; the average of weights is a network that was
never run at all. After few steps both are far from what the evaluated network gives (300 images, epoch 3 of 30: 0.55
in place of 0.95), for networks with BatchNorm only, so that early rungs would compare families by their norms. This is
what ``torch.optim.swa_utils.update_bn`` does after an average (arXiv 1803.05407), without dropout.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SHARE = 0.02
"""Images per image trained on so far: a pass without gradients takes a third to a half of a training step."""
LEAST, MOST = 64, 1024
"""Fewer leave too few values per channel where maps are small; more change the third digit of no accuracy."""


def images_for(trained: int, available: int) -> int:
    """Number of images that statistics are taken from.

    Args:
        trained: images trained on so far, each as often as it was.
        available: different training images.
    """
    return min(available, max(LEAST, min(MOST, int(SHARE * trained))))


def followed(model: nn.Module) -> list[_BatchNorm]:
    """The layers of ``model``, in the mode it is in, that replace their running statistics when they train."""
    return [
        layer
        for layer in model.modules()
        if isinstance(layer, _BatchNorm) and layer.training and layer.running_mean is not None
    ]


@torch.no_grad()
def renew(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Put the mean statistics over ``batches`` in the place of the running ones; ``model`` is in eval mode afterwards.

    Args:
        model: in training mode; without a BatchNorm that follows its statistics there, no batch is made.
        batches: what the network takes, ``(b, …)``, each of the same length and of at least 2.
    """
    layers = followed(model)
    model.eval()
    if not layers:
        return
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.num_batches_tracked = torch.zeros((), dtype=torch.int64)  # a tensor of its own: the count stays
        layer.reset_running_stats()
        layer.momentum, layer.training = None, True  # no momentum: the mean of all batches
    for batch in batches:
        model(batch)
    for layer, (momentum, count) in zip(layers, before, strict=True):
        layer.momentum, layer.num_batches_tracked, layer.training = momentum, count, False
