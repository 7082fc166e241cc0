"""How far below its teacher a student may be: a constraint of the user's, or what counts as no gain without one.

Distances are in points, hundredths of accuracy. The teacher's accuracy is the one on the validation images, where the
students' is measured too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from autodistill.core.records import Constraint, Objective, State, TrialRecord
from autodistill.core.teacher_distance import METRIC, points_words

POINTS = 20.0
"""Points below the teacher beyond which a student counts as no gain, where the user says nothing.

It only says where the effort goes: such students stay on the front, in case nothing else comes.
"""

CREDIBLE = 0.2
"""A paused trial is named as one that may come within the bound from this probability on."""

PROMISES = "promises"
"""Attribute of a study with what is expected of its paused trials, while none that finished is within the bound."""

MOST_FACTOR = 9.0
"""A training that would have to be longer than this many times is no advice."""


@dataclass(frozen=True)
class Reach:
    """The accuracy from which on a student counts, and the teacher's.

    Attributes:
        teacher: its accuracy on the validation images.
        bound: the least accuracy of a student that counts.
        soft: no constraint says so: students below the bound may be on the front, but nothing is done to find them.
    """

    teacher: float
    bound: float
    soft: bool

    @property
    def points(self) -> float:
        """How many points below the teacher the bound lies."""
        return round(100.0 * (self.teacher - self.bound), 6)

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether a student with these values counts; one whose accuracy is unknown does."""
        return values.get(METRIC, math.inf) >= self.bound

    def words(self) -> str:
        """``within 20 points of the teacher (0.8710)``."""
        return f"within {self.points:g} points of the teacher ({self.teacher:.4f})"

    def to_json(self) -> dict[str, Any]:
        """Plain dict: accuracies are fractions, ``points`` hundredths of them."""
        by = "default" if self.soft else "constraint"
        return {"teacher": self.teacher, "points": self.points, "bound": self.bound, "by": by}


def bounded(constraints: Iterable[Constraint], teacher: Mapping[str, float]) -> tuple[Constraint, ...]:
    """Constraints with the numbers that the teacher's values give those that ask for it.

    Args:
        constraints: of the study.
        teacher: its metrics; without the accuracy, bounds that need it stay open.
    """
    known = teacher.get(METRIC, math.nan)
    return tuple(one if one.below is None else replace(one, bound=less(known, one.below)) for one in constraints)


def reach_of(
    objectives: Sequence[Objective], constraints: Sequence[Constraint], teacher: Mapping[str, float], *, default: bool
) -> Reach | None:
    """The accuracy that counts; ``None`` where the teacher's is unknown, or nothing says which counts.

    Args:
        objectives: of the study; accuracy must be one of them, to be maximised.
        constraints: of the study, see :func:`bounded`; one that bounds the accuracy from below decides.
        teacher: its metrics.
        default: without such a constraint, students more than :data:`POINTS` below the teacher do not count.
    """
    known = teacher.get(METRIC, math.nan)
    if not 0 < known <= 1 or not any(o.name == METRIC and o.direction == "maximize" for o in objectives):
        return None
    asked = [c.bound for c in constraints if (c.metric, c.operator) == (METRIC, ">=") and not math.isnan(c.bound)]
    if asked:
        return Reach(known, max(asked), soft=False)
    bound = less(known, POINTS / 100)
    return Reach(known, bound, soft=True) if default and bound > 0 else None


def aims_of(reach: Reach | None) -> tuple[Constraint, ...]:
    """What falls short of it is no gain, though no constraint forbids it."""
    return (Constraint(METRIC, ">=", reach.bound),) if reach is not None and reach.soft else ()


@dataclass(frozen=True)
class Promise:
    """What is expected of a paused trial at the top rung.

    Attributes:
        trial: its number.
        accuracy: the median of what is expected.
        deviation: half the width of the interval that holds two thirds.
        chance: probability that it comes within the bound.
        epochs: that it still takes.
    """

    trial: int
    accuracy: float
    deviation: float
    chance: float
    epochs: float = 0.0


@dataclass(frozen=True)
class Nearest:
    """The finished student that comes nearest to a bound that none reaches, and what would take one there.

    Attributes:
        trial: its number.
        accuracy: what it reached.
        to_teacher: the same in points, negative below the teacher.
        points: the smallest bound in whole points that it is within.
        epochs: of a training in which it would reach the bound if it went on to gain as at its last rung; ``None``
            where that is more than nine times as long, or it gained nothing.
        promises: paused trials that may come within the bound, the likeliest first.
    """

    trial: int
    accuracy: float
    to_teacher: float
    points: int
    epochs: int | None = None
    promises: tuple[Promise, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        return {**asdict(self), "promises": [asdict(one) for one in self.promises]}


def nearest(
    trials: Iterable[TrialRecord],
    reach: Reach | None,
    constraints: Sequence[Constraint] = (),
    *,
    levels: Sequence[int] = (),
    promises: Iterable[Promise] = (),
) -> Nearest | None:
    """Which finished student comes nearest where none is within the bound; ``None`` where one is, or none finished.

    Args:
        trials: of the study.
        reach: the bound.
        constraints: of the study; students that break another one do not count.
        levels: cumulative epochs of the rungs.
        promises: what is expected of paused trials, where that is known.
    """
    others = [c for c in constraints if (c.metric, c.operator) != (METRIC, ">=")]
    done = [t for t in trials if t.state is State.COMPLETE and METRIC in t.latest]
    done = [t for t in done if all(c.violation(t.latest) <= 0 for c in others)]
    if reach is None or not done or any(reach.holds(t.latest) for t in done):
        return None
    best = max(done, key=lambda t: t.latest[METRIC])
    value = best.latest[METRIC]
    below = 100.0 * (reach.teacher - value)
    likely = sorted((p for p in promises if p.chance >= CREDIBLE), key=lambda p: -p.chance)
    return Nearest(
        best.number, value, round(-below, 6), math.ceil(round(below, 6)), _epochs(best, reach.bound, levels),
        tuple(likely),
    )  # fmt: skip


def nearest_lines(found: Nearest, reach: Reach) -> list[str]:
    """What came nearest and what it would take, sentences for people."""
    short = 100.0 * (reach.bound - found.accuracy)
    lines = [
        f"No finished student is {reach.words()}. Trial {found.trial} came nearest: {found.accuracy:.4f}, "
        f"{points_words(found.to_teacher)}, {short:.1f} short of the bound."
    ]
    for one in found.promises[:1]:
        lines.append(
            f"More budget: trial {one.trial}, which is paused, is expected at {one.accuracy:.4f} ± "
            f"{one.deviation:.2g} after {one.epochs:g} more epochs, {one.chance:.0%} likely within the bound."
        )
    if found.epochs is not None:
        lines.append(
            f"More epochs, in a new study: if trial {found.trial} went on to gain as at its last rung, it would be "
            f"within the bound after about {found.epochs} epochs."
        )
    lines.append(f"A larger bound, in a new study: --within {found.points} takes trial {found.trial} in.")
    return lines


def less(value: float, below: float) -> float:
    """``value - below``, down to nine digits: a student of exactly so many points less must not break the bound."""
    if math.isnan(value):
        return math.nan
    return math.floor(round((value - below) * 1e9, 3)) / 1e9


def _epochs(trial: TrialRecord, bound: float, levels: Sequence[int]) -> int | None:
    """Epochs after which a curve that rises with the logarithm of the epochs, as at its last rung, is at ``bound``."""
    top = len(levels)
    if top < 2 or any(METRIC not in trial.rungs.get(rung, {}) for rung in (top - 1, top)):
        return None
    last, before = (trial.rungs[rung][METRIC] for rung in (top, top - 1))
    if last <= before:
        return None
    factor = (levels[-1] / levels[-2]) ** min((bound - last) / (last - before), 99.0)
    return math.ceil(levels[-1] * factor) if factor <= MOST_FACTOR else None
