"""Known costs of students: asked once each, remembered, checked against the constraints.

Either a function gives them, or a survey did (a pool of measured students), or both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from autodistill.errors import InfeasibleError, UsageError
from autodistill.records import Constraint, stable_key
from autodistill.search import proposals
from autodistill.search.space import Space

Costs = Mapping[str, float]
CostFunction = Callable[[Mapping[str, Any]], "Costs | None"]


class Catalogue:
    """Which students may be proposed, and what they cost.

    Args:
        space: the whole search space.
        function: student to known costs; ``None`` or :class:`InfeasibleError` for one that may not be proposed.
        constraints: candidates whose known costs break one are never proposed.
    """

    def __init__(self, space: Space, function: CostFunction | None, constraints: Sequence[Constraint]) -> None:
        self.space = space
        self._function = function
        self.constraints = tuple(constraints)
        self._settings = tuple(dict.fromkeys(p.name for p in space.parameters if p.section == "student"))
        self._known: dict[str, dict[str, float] | None] = {}
        self._asked: dict[tuple[Any, ...], dict[str, float] | None] = {}
        self._names: dict[str, None] = {}
        self._pool: list[dict[str, Any]] = []

    @property
    def knows_costs(self) -> bool:
        """Whether costs are known before a trial starts."""
        return self._function is not None or bool(self._pool)

    def set_pool(self, pool: Iterable[tuple[Mapping[str, Any], Costs]]) -> None:
        """Draw students from these, whose costs were measured.

        Raises:
            UsageError: none of them satisfies the constraints.
            ConfigError: one is not a student of the space.
        """
        students = self.space.section("student")
        self._pool, self._asked = [], {}
        for student, costs in pool:
            known = self._checked(costs)
            self._known[stable_key(dict(student))] = known
            if known is not None:
                self._pool.append(students.flatten({"student": student}))
        if not self._pool:
            bounds = ", ".join(map(str, self.constraints)) or "none"
            raise UsageError(f"no surveyed student can be proposed (constraints: {bounds}); loosen a constraint.")

    def costs(self, values: Mapping[str, Any]) -> dict[str, float] | None:
        """Known costs of a candidate, possibly empty; ``None`` when it may not be proposed."""
        if not self.knows_costs:
            return {}
        settings = tuple(map(values.get, self._settings))  # those that are not active say None
        if settings not in self._asked:
            student = self.space.nest(values)["student"]
            name = stable_key(student)
            if name not in self._known:
                self._known[name] = self._ask(student)
            self._asked[settings] = self._known[name]
        return self._asked[settings]

    def names(self) -> tuple[str, ...]:
        """Names of the known costs, in the order in which they were first given; empty until one student is known."""
        return tuple(self._names)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """A random candidate, its student from the pool where there is one."""
        if not self._pool:
            return self.space.sample(rng)
        return proposals.complete(self.space, self._pool[int(rng.integers(len(self._pool)))], rng)

    def _ask(self, student: Mapping[str, Any]) -> dict[str, float] | None:
        if self._function is None:
            return None
        try:
            costs = self._function(student)
        except InfeasibleError:
            return None
        return None if costs is None else self._checked(costs)

    def _checked(self, costs: Costs) -> dict[str, float] | None:
        known = {name: float(value) for name, value in costs.items()}
        if not all(math.isfinite(value) for value in known.values()):
            return None
        if any(c.violation(known) > 0 for c in self.constraints):
            return None
        self._names.update(dict.fromkeys(known))
        return known
