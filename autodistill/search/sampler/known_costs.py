"""Known costs of students: computed once each, cached, and checked against the constraints.

They come from a function, from a survey (a pool of measured students), or from both. In the last case the function
covers students beyond the pool; costs that it cannot know are estimates until a trial has measured them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from autodistill.core.errors import InfeasibleError, UsageError
from autodistill.core.records import Constraint, Estimate, certain, stable_key
from autodistill.search.space import moves
from autodistill.search.space.space import Space

Costs = Mapping[str, float]
CostFunction = Callable[[Mapping[str, Any]], "Costs | None"]
Settings = tuple[Any, ...]
"""Values of a student's settings in the order of the space, ``None`` where inactive."""

UNLIKELY = 0.02
"""Smallest probability of satisfying a bound at which a student may be proposed; it is 0 or 1 for measured costs."""


class KnownCosts:
    """Known costs of students, and which students may be proposed.

    Args:
        space: the whole search space.
        function: student to known costs; ``None`` or :class:`InfeasibleError` if it may not be proposed.
        constraints: candidates whose known costs violate one are never proposed.
    """

    def __init__(self, space: Space, function: CostFunction | None, constraints: Sequence[Constraint]) -> None:
        self.space = space
        self._function = function
        self.constraints = tuple(constraints)
        self._settings = tuple(dict.fromkeys(p.name for p in space.parameters if p.section == "student"))
        self._known: dict[str, dict[str, float] | None] = {}
        self._by_settings: dict[tuple[Any, ...], dict[str, float] | None] = {}
        self._names: dict[str, None] = {}
        self._pool: list[dict[str, Any]] = []
        self._forbidden: dict[tuple[Any, ...], str] = {}
        self._estimated: set[str] = set()  # students with costs that are not measured
        self._surveyed: set[Settings] = set()

    @property
    def knows_costs(self) -> bool:
        """Whether costs are known before a trial starts."""
        return self._function is not None or bool(self._pool)

    @property
    def goes_beyond(self) -> bool:
        """Whether students outside a surveyed pool may be proposed as well."""
        return self._function is not None and bool(self._pool)

    def set_pool(self, pool: Iterable[tuple[Mapping[str, Any], Costs]]) -> None:
        """Set the students to draw from, with their measured costs.

        Raises:
            UsageError: no student satisfies the constraints.
            ConfigError: a student is not in the space.
        """
        self._pool, self._by_settings, self._estimated = [], dict.fromkeys(self._forbidden), set()
        self._surveyed = set()
        for student, costs in pool:
            if stable_key(dict(student)) in self._forbidden.values():
                continue
            known, values = self._checked(costs), self.space.flatten_section("student", student)
            self._known[stable_key(dict(student))] = self._by_settings[self.settings_of(values)] = known
            self._surveyed.add(self.settings_of(values))
            if known is not None:
                self._pool.append(values)
        if not self._pool:
            bounds = ", ".join(map(str, self.constraints)) or "none"
            raise UsageError(f"no surveyed student can be proposed (constraints: {bounds}); loosen a constraint.")

    def forbid(self, student: Mapping[str, Any]) -> None:
        """Exclude a student; one outside the space is never proposed anyway."""
        if self.space.holds(student):
            settings = self.settings_of(self.space.flatten_section("student", student))
            self._forbidden[settings] = name = stable_key(dict(student))
            self._known[name] = self._by_settings[settings] = None

    def costs(self, values: Mapping[str, Any]) -> dict[str, float] | None:
        """Return the known costs of a candidate, possibly empty; ``None`` if it may not be proposed."""
        settings = self.settings_of(values)
        if not self.knows_costs:
            return None if settings in self._forbidden else {}
        if settings not in self._by_settings:
            student = self.space.nest(values)["student"]
            name = stable_key(student)
            if name not in self._known:
                self._known[name] = found = self._ask(student)
                if found is not None and certain(found).keys() != found.keys():
                    self._estimated.add(name)
            self._by_settings[settings] = self._known[name]
        return self._by_settings[settings]

    def has_cached(self, values: Mapping[str, Any]) -> bool:
        """Return whether the costs of a candidate's student are cached."""
        return self.settings_of(values) in self._by_settings

    def is_surveyed(self, settings: Settings) -> bool:
        """Return whether a student is in the surveyed pool."""
        return settings in self._surveyed

    def learn(self, values: Mapping[str, Any], measured: Costs) -> None:
        """Record costs measured by a trial; a student without estimates left joins the pool."""
        if not self._estimated:
            return
        student = self.space.nest(values)["student"]
        name = stable_key(student)
        believed = self._known.get(name)
        if name not in self._estimated or believed is None:
            return
        found = {**believed, **{metric: measured[metric] for metric in believed if metric in measured}}
        if certain(found).keys() != found.keys():
            return
        self._estimated.discard(name)
        self._known[name] = self._by_settings[self.settings_of(values)] = known = self._checked(found)
        if known is not None and self._pool:  # without a survey, draws come from the whole space
            self._pool.append(self.space.flatten_section("student", student))

    def names(self) -> tuple[str, ...]:
        """Return the names of the known costs, in order of first use; empty until one student is known."""
        return tuple(self._names)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw a random candidate; its student comes from the pool if there is one."""
        if not self._pool:
            return self.space.sample(rng)
        return moves.complete_student(self.space, self._pool[int(rng.integers(len(self._pool)))], rng)

    def settings_of(self, values: Mapping[str, Any]) -> Settings:
        """Return the settings of a candidate's student."""
        return tuple(map(values.get, self._settings))

    def _ask(self, student: Mapping[str, Any]) -> dict[str, float] | None:
        if self._function is None:
            return None
        try:
            costs = self._function(student)
        except InfeasibleError:
            return None
        if costs is None or (self._pool and not self._names.keys() <= costs.keys()):
            return None  # a student with fewer known costs than the surveyed ones cannot be compared
        return self._checked(costs)

    def _checked(self, costs: Costs) -> dict[str, float] | None:
        known = {name: v if isinstance(v, Estimate) else float(v) for name, v in costs.items()}
        if not all(math.isfinite(value) for value in known.values()):
            return None
        if any(c.chance(known) < UNLIKELY for c in self.constraints):
            return None
        self._names.update(dict.fromkeys(known))
        return known
