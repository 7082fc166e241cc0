"""Optimizers from timm, the learning-rate schedule, and optimizer states as plain tensors and JSON values."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autodistill.training.loop.recipe import Recipe
from autodistill.training.students.embeddings import classifier_of, heads_of

_PREFIX = "optimizer."


def build_optimizer(model: nn.Module, recipe: Recipe, *, extra: Sequence[nn.Parameter] = ()) -> torch.optim.Optimizer:
    """Build the optimizer of the recipe, without weight decay on biases and normalization layers.

    Args:
        model: network to train.
        recipe: optimizer name and its settings.
        extra: further parameters to train with the same settings.
    """
    from timm.optim import create_optimizer_v2

    fused = {"fused": True} if recipe.optimizer in ("adamw", "adam") else {}
    grouped: dict[str, Any] = {}
    if recipe.freeze or recipe.layer_decay < 1:
        grouped = {"param_group_fn": functools.partial(parameter_groups, recipe=recipe)}
    built: torch.optim.Optimizer = create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, **fused, **grouped
    )
    if extra:
        built.add_param_group({"params": list(extra)})
    return built


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the parameter groups of a recipe with layer-wise decay or frozen epochs.

    The groups are timm's: by layer, the rate falling by ``layer_decay`` from the classifier to the stem, and by whether
    weight decay applies. With ``freeze``, layers and classifier are in separate groups; those of the layers have
    ``body``, so that their rate can rise later. A network that does not name its layers, as timm's do, is divided into
    twelve tensors a layer, which is what timm does.
    """
    from timm.optim import param_groups_layer_decay, param_groups_weight_decay

    excluded: set[str] = getattr(model, "no_weight_decay", set)()
    options: dict[str, Any] = {"weight_decay": recipe.weight_decay, "no_weight_decay_list": excluded}
    if recipe.layer_decay < 1:
        layers = model if hasattr(model, "group_matcher") else _Unnamed(model)
        groups = param_groups_layer_decay(layers, layer_decay=recipe.layer_decay, **options)
    else:
        groups = param_groups_weight_decay(model, **options)
    if not recipe.freeze:
        return list(groups)
    head = {id(parameter) for parameter in head_parameters(model)}
    parted = []
    for group in groups:
        for body in (True, False):
            kept = [parameter for parameter in group["params"] if (id(parameter) not in head) == body]
            if kept:
                parted.append({**group, "params": kept, "body": body})
    return parted


class _Unnamed:
    """A network without a list of its layers, as timm's grouping reads it."""

    def __init__(self, model: nn.Module) -> None:
        self.named_parameters = model.named_parameters
        head = classifier_of(model)
        prefix = next((name for name, module in model.named_modules() if module is head), "")
        self.pretrained_cfg = {"classifier": f"{prefix}."}


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the classifier, which is trained alone in frozen epochs.

    Raises:
        UsageError: the network has no classifier.
    """
    return [parameter for head in heads_of(model) for parameter in head.parameters()]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate at a step: linear warm-up from near zero, then a half cosine to zero at ``steps``."""
    warm = round(recipe.warmup * steps)
    if step < warm:
        return recipe.lr * (step + 1) / (warm + 1)
    progress = min((step - warm) / max(steps - warm, 1), 1.0)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))


def body_share(recipe: Recipe, step: int, steps: int, *, frozen: int) -> float:
    """Return the factor on the rate of all layers but the classifier: 0 while they are frozen, then a warm-up to 1.

    Args:
        recipe: its ``warmup`` is the share of all steps over which the factor rises.
        step: steps done.
        steps: steps of the whole schedule.
        frozen: steps in which only the classifier is trained.
    """
    if step < frozen:
        return 0.0
    return min(1.0, (step - frozen + 1) / (round(recipe.warmup * steps) + 1)) if frozen else 1.0


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors named ``optimizer.<part>.<name>``, and the values that are not tensors.

    A part is a parameter (``0``, ``1`` …) or a parameter group (``group0`` …), because some of timm's optimizers
    count their steps in the group.
    """
    stored = optimizer.state_dict()
    parts = {str(index): values for index, values in stored["state"].items()}
    parts |= {f"group{index}": group for index, group in enumerate(stored["param_groups"])}
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for part, values in parts.items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{_PREFIX}{part}.{name}"] = value
            elif isinstance(value, bool | int | float | str):
                plain.setdefault(part, {})[name] = value
    return tensors, plain


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> None:
    """Restore a state returned by ``optimizer_state``."""
    present = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts: dict[str, dict[str, Any]] = {f"group{index}": dict(group) for index, group in enumerate(present)}
    for part, values in plain.items():
        parts.setdefault(part, {}).update(values)
    for key, value in tensors.items():
        if key.startswith(_PREFIX):
            part, name = key.removeprefix(_PREFIX).split(".", 1)
            parts.setdefault(part, {})[name] = _like(parameters, part, value)
    groups = [parts.pop(f"group{index}") for index in range(len(present))]
    state = {int(part): values for part, values in parts.items()}
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _like(parameters: Sequence[nn.Parameter], part: str, value: Tensor) -> Tensor:
    """Copy ``value`` with the strides of its parameter, because fused kernels read both in memory order."""
    if not part.isdigit() or value.shape != parameters[int(part)].shape:
        return value.clone()
    return torch.empty_like(parameters[int(part)], dtype=value.dtype).copy_(value)
