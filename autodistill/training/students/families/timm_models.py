"""Creation of timm networks for the families, and helpers that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from autodistill.training.students.families.reduction import reduce_to
from autodistill.training.students.families.schema import Shape
from autodistill.training.weights.loading import create_loaded


def create(name: str, shape: Shape, **keywords: Any) -> nn.Module:
    """Call ``timm.create_model`` for a shape; :func:`timm_call` returns the name and keywords of the call.

    Raises:
        WeightsError: the weights of the shape do not fit the network.
    """
    own: dict[str, Any] = {"num_classes": shape.num_classes, "in_chans": shape.channels, **keywords}
    model: nn.Module = (
        timm.create_model(name, pretrained=False, **own)
        if shape.weights is None
        else create_loaded(name, shape.weights, **own)
    )
    model.__dict__[_CALL] = (name, dict(keywords))
    return model


_CALL = "_autodistill_timm_call"


def timm_call(model: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """Return the name and keywords with which ``create`` made a network, or ``None`` for other networks.

    The network may have been changed since.
    """
    found: tuple[str, dict[str, Any]] | None = model.__dict__.get(_CALL)
    return found


def fitted(model: nn.Module, params: Mapping[str, Any], shape: Shape, *, skip: str = "") -> nn.Module:
    """Adapt the strides of ``model`` in place to the parameter ``reduction``; return the model."""
    return reduce_to(model, params["reduction"], image_size=shape.image_size, channels=shape.channels, skip=skip)


def doubling(width: int, stages: int = 4) -> tuple[int, ...]:
    """Return the widths of stages: ``width`` in the first, twice as many in each next."""
    return tuple(width * 2**stage for stage in range(stages))
