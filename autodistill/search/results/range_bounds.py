"""Numbers whose best values lie on a bound of their range: what is beyond it was not searched, and may be better."""

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
"""Of a range (of its logarithm where it is logarithmic): what counts as on the bound."""

LEAST = 2
"""Members of the front on the same bound below which it may well be chance."""

LIMITS = {"distillation.alpha": (0.0, 1.0)}
"""The least and the most that a parameter can be: a bound there is nothing that a wider space would mend."""

Side = Literal["lower", "upper"]


@dataclass(frozen=True)
class RangeBound:
    """A bound on which at least half of the front lies.

    Attributes:
        parameter: its name in the space.
        side: ``lower`` or ``upper``.
        bound: its value.
        members: students of the front on it.
        front: students of the front.
    """

    parameter: str
    side: Side
    bound: float
    members: int
    front: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def words(self) -> str:
        """A clause."""
        return f"{self.parameter} on its {self.side} bound {self.bound:.4g} ({self.members} of {self.front} students)"


def bounds_on_front(front: Front, space: Space) -> list[RangeBound]:
    """The bounds on which at least half of the front's members lie, in the order of the space."""
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
        except ConfigError:  # told to the study by somebody else
            continue
        found.update((name, side) for name in values if name in ranges for side in _sides(ranges[name], values[name]))
    return [
        RangeBound(name, side, _bound(ranges[name], side), found[name, side], len(students))
        for name in ranges
        for side in ("lower", "upper")
        if found[name, side] >= max(LEAST, len(students) / 2) and _bound(ranges[name], side) not in LIMITS.get(name, ())
    ]


def bounds_line(edges: Sequence[RangeBound], space: str = "") -> str:
    """One sentence for people; empty where no bound is in the way.

    Args:
        edges: what :func:`bounds_on_front` found.
        space: name of the built-in space, where it is one.
    """
    if not edges:
        return ""
    what = ", ".join(edge.words() for edge in edges)
    copy = f" (autodistill spaces cp {space})" if space else ""
    them = "it" if len(edges) == 1 else "them"
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
