"""Optimizers from timm, their schedule, and their state as plain tensors and JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autodistill.training.recipe import Recipe

_PREFIX = "optimizer."


def build_optimizer(model: nn.Module, recipe: Recipe, *, beside: Sequence[nn.Parameter] = ()) -> torch.optim.Optimizer:
    """The recipe's optimizer; no weight decay on biases and normalization.

    Args:
        model: what is trained.
        recipe: names the optimizer and its settings.
        beside: further parameters, trained alike.
    """
    from timm.optim import create_optimizer_v2

    fused = {"fused": True} if recipe.optimizer in ("adamw", "adam") else {}
    built: torch.optim.Optimizer = create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, **fused
    )
    if beside:
        built.add_param_group({"params": list(beside)})
    return built


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Linear from near zero over the warm-up, then half a cosine down to zero at ``steps``."""
    warm = round(recipe.warmup * steps)
    if step < warm:
        return recipe.lr * (step + 1) / (warm + 1)
    progress = min((step - warm) / max(steps - warm, 1), 1.0)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors named ``optimizer.<parameter>.<name>``, and the numbers that are not tensors."""
    state = optimizer.state_dict()["state"]
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, values in state.items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{_PREFIX}{index}.{name}"] = value
            elif value is not None:
                numbers.setdefault(str(index), {})[name] = value
    return tensors, {"numbers": numbers}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """The inverse of ``optimizer_state``; hyperparameters come from the recipe, not from the file."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith(_PREFIX):
            index, name = key.removeprefix(_PREFIX).split(".", 1)
            state.setdefault(int(index), {})[name] = value.clone()
    for index, numbers in facts["numbers"].items():
        state.setdefault(int(index), {}).update(numbers)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
