"""Extreme students of a space: the smallest and the largest of each family, and a few random ones.

Smallest and largest refer to each parameter; the costs of the students are not computed here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autodistill.core.records import Params, stable_key
from autodistill.search.space.space import Space, Values

FAMILY = "student.family"


def extreme_students(space: Space, *, samples: int = 2, seed: int = 0) -> dict[str, list[Params]]:
    """Return students by family: the two extremes first, then random ones, without duplicates.

    Args:
        space: the search space.
        samples: number of random students per family.
        seed: seed of the random students.
    """
    section = space.section("student")
    families = next((p.distribution for p in section.parameters if p.name == FAMILY), None)
    rng = np.random.default_rng(seed)
    out: dict[str, list[Params]] = {}
    if not isinstance(families, CategoricalDistribution):
        found = _students(section, samples, rng)
        return {str(found[0].get("family", "student")): found}
    for name in families.choices:
        out[str(name)] = _students(space.restrict({FAMILY: [name]}).section("student"), samples, rng)
    return out


def _students(branch: Space, samples: int, rng: np.random.Generator) -> list[Params]:
    values = [_extreme(branch, 0), _extreme(branch, -1), *(branch.sample(rng) for _ in range(samples))]
    students = [branch.nest(one)["student"] for one in values]
    return list({stable_key(one): one for one in students}.values())


def _extreme(branch: Space, end: int) -> Values:
    values: Values = {}
    for parameter in branch.parameters:
        if parameter.name in branch.active(values):
            values[parameter.name] = _end(parameter.distribution, end)
    return values


def _end(distribution: BaseDistribution, end: int) -> Any:
    """Return the smallest or largest value; of names the first or last, since sizes are listed from small to large."""
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        numbers = [c for c in choices if isinstance(c, (int, float)) and not isinstance(c, bool)]
        return sorted(numbers)[end] if len(numbers) == len(choices) else choices[end]
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    return distribution.low if end == 0 else distribution.high
