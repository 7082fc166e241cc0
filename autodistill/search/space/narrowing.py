"""Narrowing of one choice of a parameter to the draws that can have it; elsewhere the parameter has another value.

A sampler sees conditions only, so that no sampler can propose what was taken out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from optuna.distributions import CategoricalDistribution

from autodistill.core.errors import ConfigError
from autodistill.search.space.conditions import Condition, join
from autodistill.search.space.groups import named
from autodistill.search.space.space import Constant, Parameter, Space


def offer_only(
    space: Space, name: str, value: Any, *, where: Sequence[Condition], elsewhere: Sequence[Condition]
) -> Space:
    """Return the space in which a parameter offers ``value`` only where one of some conditions holds.

    Elsewhere its value is fixed to the first of its other choices: Optuna allows one list of choices per name.

    Args:
        space: the space.
        name: dotted path of the parameter, a choice of several values.
        value: the value.
        where: conditions of which at most one holds in any draw.
        elsewhere: conditions of the other draws, of which at most one holds.

    Raises:
        ConfigError: what the conditions name depends on the parameter itself.
    """
    parameters: list[Parameter] = []
    constants = list(space.constants)
    for one in space.parameters:
        choices = one.distribution.choices if isinstance(one.distribution, CategoricalDistribution) else ()
        others = [choice for choice in choices if choice != value]
        if one.name != name or value not in choices or not others:
            parameters.append(one)
            continue
        parameters += [replace(one, condition=join(one.condition, cell)) for cell in where]
        constants += [Constant(name, others[0], join(one.condition, cell)) for cell in elsewhere]
    return replace(space, parameters=_parents_first(parameters, constants, name), constants=tuple(constants))


def _parents_first(parameters: list[Parameter], constants: list[Constant], moved: str) -> tuple[Parameter, ...]:
    """Return the parameters in their order, but ``moved`` and what depends on it after those that it depends on.

    Raises:
        ConfigError: they depend on each other in a circle.
    """
    every: list[Parameter | Constant] = [*parameters, *constants]
    names = list(dict.fromkeys(one.name for one in every))
    wants: dict[str, set[str]] = {}
    for one in every:
        unless = one.unless if isinstance(one, Constant) else ()
        for reference, _ in (*one.condition, *unless):
            wants.setdefault(one.name, set()).update(named(reference, names))
    out: list[Parameter] = []
    left = list(parameters)
    while left:
        waiting = {one.name for one in left}
        ready = next((one for one in left if not _needs(one.name, wants) & (waiting - {one.name})), None)
        if ready is None or ready.name in _needs(ready.name, wants):
            reason = f"{moved}: it depends on the student's family and variant, which depend on {moved} here"
            raise ConfigError([f"{reason}; give the student's parameters no condition on it"], "search space")
        out.append(ready)
        left.remove(ready)
    return tuple(out)


def _needs(name: str, wants: dict[str, set[str]]) -> set[str]:
    """Return all names that a name depends on, directly or through others."""
    found: set[str] = set()
    left = list(wants.get(name, ()))
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += wants.get(one, ())
    return found
