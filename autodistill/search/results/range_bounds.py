"""Parameters whose best values lie on a bound of their range: values beyond were not searched and may be better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autodistill.core.errors import ConfigError
from autodistill.search.results.front import Front
from autodistill.search.space.distributions import to_unit
from autodistill.search.space.space import Space

NEAR = 0.01
"""Share of a range (of its logarithm if it is logarithmic) within which a value counts as on the bound."""

LEAST = 2
"""Members of the front on the same bound that are needed to report it; fewer may be chance."""

LIMITS = {"distillation.alpha": (0.0, 1.0)}
"""Natural limits of parameters: a wider space cannot go beyond them, so they are not reported."""

Side = Literal["lower", "upper"]


@dataclass(frozen=True)
class RangeBound:
    """A bound on which at least half of the front lies.

    Attributes:
        parameter: name of the parameter in the space.
        side: ``lower`` or ``upper``.
        bound: value of the bound.
        members: number of students of the front on it.
        front: number of students of the front.
    """

    parameter: str
    side: Side
    bound: float
    members: int
    front: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def words(self) -> str:
        """Return a description as a clause."""
        return f"{self.parameter} on its {self.side} bound {self.bound:.4g} ({self.members} of {self.front} students)"


def bounds_on_front(front: Front, space: Space) -> list[RangeBound]:
    """Return the bounds on which at least half of the front's members lie, in the order of the space."""
    students = {t.number: t for t in front.trials}.values()  # a student in two forms is one
    found: Counter[tuple[str, Side]] = Counter()
    ranges = {
        p.name: p.distribution
        for p in space.parameters
        if not isinstance(p.distribution, CategoricalDistribution) and not p.distribution.single()
    }
    for trial in students:
        try:
            values = space.flatten({"student": trial.student, "distillation": trial.distillation, "train": trial.train})
        except ConfigError:  # a trial that another program has stored, outside this space
            continue
        found.update((name, side) for name in values if name in ranges for side in _sides(ranges[name], values[name]))
    return [
        RangeBound(name, side, _bound(ranges[name], side), found[name, side], len(students))
        for name in ranges
        for side in ("lower", "upper")
        if found[name, side] >= max(LEAST, len(students) / 2) and _bound(ranges[name], side) not in LIMITS.get(name, ())
    ]


def bounds_line(bounds: Sequence[RangeBound], space: str = "") -> str:
    """Return a sentence about the bounds; empty if there are none.

    Args:
        bounds: result of :func:`bounds_on_front`.
        space: name of the space if it is built in.
    """
    if not bounds:
        return ""
    what = ", ".join(one.words() for one in bounds)
    copy = f" (autodistill spaces cp {space})" if space else ""
    them = "it" if len(bounds) == 1 else "them"
    return f"best values lie on bounds: {what}; widen {them} in a copy of the space{copy} for a new study"


def _sides(d: Any, value: float) -> list[Side]:
    at = to_unit(d, value)
    ends: list[Side] = []
    if at <= NEAR:
        ends.append("lower")
    if at >= 1 - NEAR:
        ends.append("upper")
    return ends


def _bound(d: Any, side: Side) -> float:
    assert isinstance(d, (FloatDistribution, IntDistribution))
    return float(d.low if side == "lower" else d.high)
