"""Says before a search when its augmentation gives each trial views of its own, so that no teacher cache serves two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autodistill.search.space.space import Space

_STRENGTH = "augment_strength"


def cold_views(space: Space, training: Mapping[str, Any]) -> str:
    """One sentence where trials ask the teacher about views that no other trial has; empty elsewhere.

    Args:
        space: of the study.
        training: the study's settings of all trials.
    """
    from optuna.distributions import FloatDistribution

    from autodistill.training.augmentation.policy import Policy
    from autodistill.training.loop.recipe import Recipe, scaled

    found = [p.distribution for p in space.section("train").parameters if p.key == _STRENGTH]
    ranges = [d for d in found if isinstance(d, FloatDistribution) and d.step is None and d.low < d.high]
    if not ranges or "cached" not in setting_values(space, training, "teacher_mode", Recipe.teacher_mode):
        return ""
    low, high = min(d.low for d in ranges), max(d.high for d in ranges)
    policies = [Policy.parse(name) for name in setting_values(space, training, "augment", Recipe.augment)]
    if all(scaled(one, low).view_key() == scaled(one, high).view_key() for one in policies):
        return ""
    return (
        f"train.{_STRENGTH} is a range from {low:g} to {high:g}: every trial then sees views of its own and asks the "
        f"teacher about all of them, and no trial finds a warm teacher cache. Give it a few values "
        f"({_STRENGTH}: [0.25, 0.5, 0.75]), or set training.teacher_mode to online."
    )


def setting_values(space: Space, training: Mapping[str, Any], key: str, default: str) -> list[Any]:
    """What a setting of the training may be: by the space, else by the study, else by default."""
    from optuna.distributions import CategoricalDistribution

    section = space.section("train")
    out: list[Any] = [one.value for one in section.constants if one.name.rsplit(".", 1)[-1] == key]
    for parameter in section.parameters:
        if parameter.key == key and isinstance(parameter.distribution, CategoricalDistribution):
            out += parameter.distribution.choices
    return out or [training.get(key, default)]
