"""A space fitted to a study, before its own restrictions: to the size of the images, and to timm networks by name.

Families and resolutions are only names here, as everywhere in the search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autodistill.core.errors import ConfigError
from autodistill.search.space.groups import leaf_choices, prune
from autodistill.search.space.space import Space

FAMILY, MODEL, TIMM = "student.family", "student.timm.model", "timm"
RESOLUTION = "resolution"


def fitted(
    mapping: Mapping[str, Any],
    source: str = "space",
    *,
    choices: Mapping[str, Any] | None = None,
    image_size: int | None = None,
) -> Space:
    """Parse a space for a study.

    Args:
        mapping: the space.
        source: its name in messages.
        choices: restrictions of the study, which may name timm networks (:func:`with_networks`); they are not applied.
        image_size: side of the study's images in pixels; ``None`` if it is unknown.

    Raises:
        ConfigError: the space is invalid.
    """
    space = Space.parse(with_networks(mapping, choices or {}), source)
    return space if image_size is None else within_images(space, image_size)


def with_networks(mapping: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """Add the family ``timm`` with the networks that a restriction names: any timm network may be searched.

    ``student.timm.model`` takes names of timm, which no space can list all of. They replace those of the space.

    Raises:
        ConfigError: the family is wanted, but no network is named.
    """
    student = mapping.get("student")
    if not isinstance(student, Mapping) or "family" not in student:
        return dict(mapping)
    if MODEL not in choices:
        if TIMM in leaf_choices(choices.get(FAMILY, [])) and TIMM not in student:
            example = f"--set {MODEL}=resnet18,resnet34"
            raise ConfigError([f"{FAMILY}: timm needs the names of its networks, e.g. {example}"], "--set")
        return dict(mapping)
    names = leaf_choices(choices[MODEL])
    group = student.get(TIMM)
    group = {**(group if isinstance(group, Mapping) else {}), "model": names}
    return {**mapping, "student": {**student, "family": _with_timm(student["family"]), TIMM: group}}


def within_images(space: Space, image_size: int) -> Space:
    """Return a space without the resolutions above the side of the images; without the parameter if none is left."""
    source = space.to_dict()
    narrowed: dict[str, Any] = {}
    for parameter in space.parameters:
        if parameter.section != "student" or parameter.key != RESOLUTION:
            continue
        kept = _at_most(parameter.distribution, image_size)
        if kept is None:
            _remove(source, parameter.name)
        elif kept != parameter.distribution:
            narrowed[parameter.name] = _written(kept)
    fitting = Space.parse(prune(source, before=space.source)) if source != space.source else space
    return fitting.restrict(narrowed) if narrowed else fitting


def _with_timm(family: Any) -> Any:
    """Return the choice of families with ``timm`` among them; with weights, at the mean of the others."""
    if TIMM in leaf_choices(family):
        return family
    if not isinstance(family, Mapping):
        return [*leaf_choices(family), TIMM]
    weights = family.get("weights")
    own = {"weights": [*weights, math.fsum(weights) / len(weights)]} if weights else {}
    kept = {key: value for key, value in family.items() if key not in ("value", "values", "weights")}
    return {**kept, "values": [*leaf_choices({**family, "otherwise": TIMM})], **own}


def _at_most(d: BaseDistribution, most: int) -> BaseDistribution | None:
    """Return the values up to ``most``; ``None`` if there are none."""
    if isinstance(d, CategoricalDistribution):
        kept = [choice for choice in d.choices if isinstance(choice, (int, float)) and choice <= most]
        return CategoricalDistribution(kept) if kept else None
    assert isinstance(d, (IntDistribution, FloatDistribution))
    if d.low > most:
        return None
    if d.high <= most:
        return d
    step = d.step or 0
    high = d.low + (most - d.low) // step * step if step else float(most)
    return IntDistribution(d.low, int(high), step=d.step or 1, log=d.log) if isinstance(d, IntDistribution) else (
        FloatDistribution(d.low, float(high), step=d.step, log=d.log)
    )  # fmt: skip


def _written(d: BaseDistribution) -> Any:
    if isinstance(d, CategoricalDistribution):
        return list(d.choices)
    assert isinstance(d, (IntDistribution, FloatDistribution))
    return {"low": d.low, "high": d.high}


def _remove(mapping: dict[str, Any], name: str) -> None:
    *path, last = name.split(".")
    for part in path:
        mapping = mapping[part]
    del mapping[last]
