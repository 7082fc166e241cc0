"""Where candidates come from before a model ranks them: random draws and moves around good ones.

Only proposes; what is feasible, new and promising is decided by :mod:`autodistill.search.sampler.front_sampler`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from autodistill.search.space.distributions import contains, from_unit, to_unit
from autodistill.search.space.priors import at_unit
from autodistill.search.space.space import Parameter, Space

Floats = npt.NDArray[np.float64]
Values = dict[str, Any]

STEPS = (0.05, 0.2)
"""Standard deviations of the moves of a number, in units of its range."""


Key = tuple[tuple[str, Any], ...]


def key(values: Mapping[str, Any]) -> Key:
    """Equal for equal assignments; every assignment here is in the order of the space's parameters."""
    return tuple(values.items())  # a set of them would need no order, and be three times as slow


def complete(space: Space, values: Mapping[str, Any], rng: np.random.Generator) -> Values:
    """``values`` without inactive parameters and with a draw for every active one that is missing."""

    def choose(parameter: Parameter) -> Any:
        name, d = parameter.name, parameter.distribution
        if name in values and contains(d, values[name]):
            return values[name]
        return from_unit(d, at_unit(parameter.prior, rng.random()))

    return space.fill(choose)


def within(space: Space, values: Mapping[str, Any]) -> Values | None:
    """The parameters of the space among ``values``; ``None`` where one is missing or not among its choices."""

    def choose(parameter: Parameter) -> Any:
        value = values[parameter.name]
        if not contains(parameter.distribution, value):
            raise KeyError(parameter.name)
        return value

    try:
        return space.fill(choose)
    except KeyError:
        return None


def neighbours(
    space: Space, values: Mapping[str, Any], rng: np.random.Generator, kept: Collection[str] = ()
) -> Iterator[Values]:
    """Assignments that differ in one parameter: every other choice, a near and a far step of every number.

    Args:
        space: what the assignments belong to.
        values: one of them.
        rng: of the steps.
        kept: parameters that stay as they are.
    """
    parents = {parent for p in space.parameters for parent, _ in p.condition}
    known = {p.name: p.distribution for p in space.parameters}
    for name, old in values.items():
        if name in kept:
            continue
        for value in _moves(known[name], old, rng):
            if value != old:
                moved = {**values, name: value}
                yield complete(space, moved, rng) if name in parents else moved


def crossovers(
    space: Space, parents: Sequence[Mapping[str, Any]], count: int, rng: np.random.Generator
) -> Iterator[Values]:
    """Mixtures of two parents, each parameter from either."""
    if len(parents) < 2:
        return
    for _ in range(count):
        a, b = (parents[int(i)] for i in rng.choice(len(parents), size=2, replace=False))
        names = dict.fromkeys([*a, *b])
        mixed = {n: (a if (rng.random() < 0.5 and n in a) or n not in b else b)[n] for n in names}
        yield complete(space, mixed, rng)


def free_numbers(space: Space) -> dict[str, BaseDistribution]:
    """The numbers that do not change what a candidate costs: those of its training."""
    pairs = ((p.name, p.distribution) for p in space.parameters if p.section != "student")
    return {name: d for name, d in pairs if not isinstance(d, CategoricalDistribution)}


def unique(candidates: Iterable[Values], seen: set[Key]) -> dict[Key, Values]:
    """Candidates whose key is new, by their keys; ``seen`` grows."""
    out = {}
    for values in candidates:
        name = key(values)
        if name not in seen:
            seen.add(name)
            out[name] = values
    return out


def _moves(d: BaseDistribution, value: Any, rng: np.random.Generator) -> list[Any]:
    if isinstance(d, CategoricalDistribution):
        return [choice for choice in d.choices if choice != value or type(choice) is not type(value)]
    at = to_unit(d, value)
    moved = [from_unit(d, min(max(at + rng.normal(0.0, step), 0.0), 1.0)) for step in STEPS]
    if isinstance(d, IntDistribution):
        moved += [v for v in (value - d.step, value + d.step) if d.low <= v <= d.high]
    return moved
