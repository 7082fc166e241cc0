"""BatchNorm statistics, recomputed from training images for the weights that are evaluated.

Running statistics begin at 0 and 1 and follow the weights of past steps, while the network with averaged weights has
never been run. After few steps the running statistics are therefore far from those of the evaluated network (300
images, epoch 3 of 30: accuracy 0.55 instead of 0.95). Only networks with BatchNorm are affected, so early rungs would
compare families by their normalization layers. ``torch.optim.swa_utils.update_bn`` does the same after averaging
(arXiv 1803.05407); here dropout is off.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SHARE = 0.02
"""Images used per image trained on so far; a pass without gradients takes a third to a half of a training step."""
LEAST, MOST = 64, 1024
"""Smallest and largest number of images.

Fewer give too few values per channel where maps are small; more change accuracies by less than 1e-3.
"""


def images_for(trained: int, available: int) -> int:
    """Return the number of images that the statistics are computed from.

    Args:
        trained: images trained on so far, counted with repetitions.
        available: number of different training images.
    """
    return min(available, max(LEAST, min(MOST, int(SHARE * trained))))


def followed(model: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers of ``model`` that are in training mode and track running statistics."""
    return [
        layer
        for layer in model.modules()
        if isinstance(layer, _BatchNorm) and layer.training and layer.running_mean is not None
    ]


@torch.no_grad()
def renew(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace running statistics by the mean statistics over ``batches``, and set ``model`` to eval mode.

    Args:
        model: network in training mode; if no BatchNorm layer tracks statistics, ``batches`` is not read.
        batches: inputs of the network, ``(b, …)``, all with the same b of at least 2.
    """
    layers = followed(model)
    model.eval()
    if not layers:
        return
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.num_batches_tracked = torch.zeros(
            (), dtype=torch.int64
        )  # a new tensor, so that the old count is not changed
        layer.reset_running_stats()
        layer.momentum, layer.training = None, True  # momentum None averages over all batches
    for batch in batches:
        model(batch)
    for layer, (momentum, count) in zip(layers, before, strict=True):
        layer.momentum, layer.num_batches_tracked, layer.training = momentum, count, False
