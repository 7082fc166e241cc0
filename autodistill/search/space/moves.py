"""Moves in a search space: completion of partial assignments, neighbours, and mixtures of two candidates.

They only propose; :mod:`autodistill.search.sampler.front_sampler` decides what is feasible, new and promising.
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
"""Standard deviations of the moves of a number, as shares of its range."""

TRIES = 100
"""Most completions of one student."""

Key = tuple[tuple[str, Any], ...]
"""Identity of an assignment."""


def key(values: Mapping[str, Any]) -> Key:
    """Return a key that is equal for equal assignments, which must be in the order of the space's parameters."""
    return tuple(values.items())  # a frozenset would need no order, but is three times as slow


def complete(space: Space, values: Mapping[str, Any], rng: np.random.Generator) -> Values:
    """Return ``values`` without inactive parameters, and with a random draw for every missing active one."""

    def choose(parameter: Parameter) -> Any:
        name, d = parameter.name, parameter.distribution
        if name in values and contains(d, values[name]):
            return values[name]
        return from_unit(d, at_unit(parameter.prior, rng.random()))

    return space.fill(choose)


def complete_student(space: Space, values: Mapping[str, Any], rng: np.random.Generator) -> Values:
    """Return a random candidate with the student of ``values``, which has no values of other sections.

    Where a student's parameters depend on other sections, random completions are drawn until one keeps the student.
    """
    out = complete(space, values, rng)
    if not space.parents_of_students:
        return out
    for _ in range(TRIES):
        if {name: value for name, value in out.items() if name.startswith("student.")} == dict(values):
            break
        out = complete(space, values, rng)
    return out


def within(space: Space, values: Mapping[str, Any]) -> Values | None:
    """Return the space's parameters among ``values``; ``None`` if one is missing or invalid."""

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
    """Yield assignments that differ in one parameter: every other choice, a small and a large step of every number.

    Args:
        space: the search space.
        values: the assignment to start from.
        rng: random numbers of the steps.
        kept: parameters that do not change.
    """
    known = {p.name: p.distribution for p in space.parameters}
    for name, old in values.items():
        if name in kept:
            continue
        for value in _moves(known[name], old, rng):
            if value != old:
                moved = {**values, name: value}
                yield complete(space, moved, rng) if name in space.parents else moved


def crossovers(
    space: Space, parents: Sequence[Mapping[str, Any]], count: int, rng: np.random.Generator
) -> Iterator[Values]:
    """Yield mixtures of two random parents; each parameter comes from either."""
    if len(parents) < 2:
        return
    for _ in range(count):
        a, b = (parents[int(i)] for i in rng.choice(len(parents), size=2, replace=False))
        names = dict.fromkeys([*a, *b])
        mixed = {n: (a if (rng.random() < 0.5 and n in a) or n not in b else b)[n] for n in names}
        yield complete(space, mixed, rng)


def free_numbers(space: Space) -> dict[str, BaseDistribution]:
    """Return the numeric parameters of distillation and training on which no other depends.

    They change neither a candidate's known costs nor which parameters are active.
    """
    pairs = (
        (p.name, p.distribution) for p in space.parameters if p.section != "student" and p.name not in space.parents
    )
    return {name: d for name, d in pairs if not isinstance(d, CategoricalDistribution)}


def unique(candidates: Iterable[Values], seen: set[Key]) -> dict[Key, Values]:
    """Return the candidates whose key is new, by key; their keys are added to ``seen``."""
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
