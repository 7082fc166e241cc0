"""What the settings of a space mean for the teacher: views that no trials share, embeddings, unlabelled images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autodistill.search.space.space import Space

_STRENGTH = "augment_strength"


def cold_views(space: Space, training: Mapping[str, Any]) -> str:
    """Return a warning if every trial has its own views, so that cached teacher outputs are never reused; else ``""``.

    Args:
        space: Search space of the study.
        training: Training settings shared by all trials.
    """
    from optuna.distributions import FloatDistribution

    from autodistill.training.augmentation.policy import Policy
    from autodistill.training.loop.recipe import Recipe, scaled

    found = [p.distribution for p in space.parameters if p.section == "train" and p.key == _STRENGTH]
    ranges = [d for d in found if isinstance(d, FloatDistribution) and d.step is None and d.low < d.high]
    if not ranges or "cached" not in setting_values(space, training, "teacher_mode", Recipe.teacher_mode):
        return ""
    low, high = min(d.low for d in ranges), max(d.high for d in ranges)
    policies = [Policy.parse(name) for name in setting_values(space, training, "augment", Recipe.augment)]
    if all(scaled(one, low).view_key() == scaled(one, high).view_key() for one in policies):
        return ""
    return (
        f"train.{_STRENGTH} is a range from {low:g} to {high:g}, so every trial has its own views, and the teacher's "
        f"cached outputs are never reused. Use a few values ({_STRENGTH}: [0.25, 0.5, 0.75]), or set "
        "training.teacher_mode to online."
    )


def searches_embeddings(space: Space) -> bool:
    """Return whether some candidates of a space have an embedding term."""
    section = space.section("distillation")
    values: list[Any] = [one.value for one in section.constants if one.name == "distillation.embedding"]
    for parameter in section.parameters:
        if parameter.key == "embedding":
            values += getattr(parameter.distribution, "choices", ())
    return any(value != "none" for value in values)


def mean_setting(space: Space, training: Mapping[str, Any], key: str, default: float) -> float:
    """Return the mean of a number among the training settings: over the space, else the study's, else the default."""
    from optuna.distributions import FloatDistribution, IntDistribution

    found = [p.distribution for p in space.section("train").parameters if p.key == key]
    ranges = [one for one in found if isinstance(one, FloatDistribution | IntDistribution)]
    if ranges:
        return sum(float(one.low + one.high) / 2 for one in ranges) / len(ranges)
    values = [float(one) for one in setting_values(space, training, key, str(default))]
    return sum(values) / len(values)


def setting_values(space: Space, training: Mapping[str, Any], key: str, default: str) -> list[Any]:
    """Return the possible values of a training setting: those of the space, else of the study, else the default."""
    from optuna.distributions import CategoricalDistribution

    out: list[Any] = [one.value for one in space.constants if one.section == "train" and one.key == key]
    for parameter in space.parameters:
        searched = parameter.section == "train" and parameter.key == key
        if searched and isinstance(parameter.distribution, CategoricalDistribution):
            out += parameter.distribution.choices
    return out or [training.get(key, default)]
