"""The one place where families call timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from autodistill.training.students.families.reduction import reduce_to
from autodistill.training.students.families.schema import Shape


def create(name: str, shape: Shape, **keywords: Any) -> nn.Module:
    """``timm.create_model`` for this shape; the network remembers how it was asked for (:func:`asked_of_timm`)."""
    model: nn.Module = timm.create_model(
        name, pretrained=shape.pretrained, num_classes=shape.num_classes, in_chans=shape.channels, **keywords
    )
    model.__dict__[_ASKED] = (name, dict(keywords))
    return model


_ASKED = "_autodistill_asked_of_timm"


def asked_of_timm(model: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """Name and keywords that timm made a network from, whatever was changed since; ``None`` where timm did not."""
    found: tuple[str, dict[str, Any]] | None = model.__dict__.get(_ASKED)
    return found


def fitted(model: nn.Module, params: Mapping[str, Any], shape: Shape, *, skip: str = "") -> nn.Module:
    """``model`` with the strides that the parameter ``reduction`` asks for."""
    return reduce_to(model, params["reduction"], image_size=shape.image_size, channels=shape.channels, skip=skip)


def doubling(width: int, stages: int = 4) -> tuple[int, ...]:
    """``width`` in the first stage, twice that in the next, and so on."""
    return tuple(width * 2**stage for stage in range(stages))
