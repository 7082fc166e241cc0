"""How far below its teacher a student may be: by a constraint, or by default as a limit below which there is no gain.

Distances are in points, i.e. hundredths of accuracy. The teacher's accuracy is measured on the validation images, like
that of the students.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from autodistill.core.records import Constraint, Objective, State, TrialRecord
from autodistill.core.teacher_distance import METRIC, points_words

POINTS = 20.0
"""Default distance in points below the teacher beyond which a student counts as no gain.

It only directs the search: such students remain on the front, in case there are no others.
"""

CREDIBLE = 0.2
"""Least probability of coming within the bound at which a paused trial is mentioned."""

PROMISES = "promises"
"""Study attribute with predictions for paused trials, while no finished trial is within the bound."""

MOST_FACTOR = 9.0
"""Longest training that is suggested, as a multiple of the present one."""


@dataclass(frozen=True)
class Reach:
    """The accuracy from which a student counts, and the teacher's accuracy.

    Attributes:
        teacher: accuracy of the teacher on the validation images.
        bound: least accuracy of a student that counts.
        soft: the bound is a default and no constraint: students below it may be on the front, but are not sought.
    """

    teacher: float
    bound: float
    soft: bool

    @property
    def points(self) -> float:
        """Distance of the bound from the teacher, in points."""
        return round(100.0 * (self.teacher - self.bound), 6)

    def holds(self, values: Mapping[str, float]) -> bool:
        """Return whether a student with these values counts; one with unknown accuracy does."""
        return values.get(METRIC, math.inf) >= self.bound

    def words(self) -> str:
        """Return the bound in words: ``within 20 points of the teacher (0.8710)``."""
        return f"within {self.points:g} points of the teacher ({self.teacher:.4f})"

    def to_json(self) -> dict[str, Any]:
        """Return plain values: accuracies are fractions, ``points`` hundredths of them."""
        by = "default" if self.soft else "constraint"
        return {"teacher": self.teacher, "points": self.points, "bound": self.bound, "by": by}


def bounded(constraints: Iterable[Constraint], teacher: Mapping[str, float]) -> tuple[Constraint, ...]:
    """Return the constraints, with bounds relative to the teacher resolved to numbers.

    Args:
        constraints: constraints of the study.
        teacher: metrics of the teacher; without its accuracy, bounds that need it stay NaN.
    """
    known = teacher.get(METRIC, math.nan)
    return tuple(one if one.below is None else replace(one, bound=less(known, one.below)) for one in constraints)


def reach_of(
    objectives: Sequence[Objective], constraints: Sequence[Constraint], teacher: Mapping[str, float], *, default: bool
) -> Reach | None:
    """Return the accuracy that counts; ``None`` if the teacher's is unknown or there is neither constraint nor default.

    Args:
        objectives: objectives of the study; accuracy must be one of them, to be maximised.
        constraints: constraints of the study, see :func:`bounded`; a lower bound on the accuracy takes precedence.
        teacher: metrics of the teacher.
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
    """Return a soft bound as a constraint for the sampler: violating it counts as no gain, but is allowed."""
    return (Constraint(METRIC, ">=", reach.bound),) if reach is not None and reach.soft else ()


@dataclass(frozen=True)
class Promise:
    """Prediction for a paused trial at the top rung.

    Attributes:
        trial: number of the trial.
        accuracy: median of the prediction.
        deviation: half the width of the interval with a probability of two thirds.
        chance: probability of coming within the bound.
        epochs: epochs left to the top rung.
    """

    trial: int
    accuracy: float
    deviation: float
    chance: float
    epochs: float = 0.0


@dataclass(frozen=True)
class Nearest:
    """The finished student nearest to a bound that none reaches, and the work that might reach it.

    Attributes:
        trial: number of the trial.
        accuracy: accuracy of the student.
        to_teacher: distance to the teacher in points, negative below the teacher.
        points: smallest bound in whole points that the student is within.
        epochs: epochs of a training that would reach the bound if the gain of the last rung continued; ``None`` if it
            is more than nine times as long, or there was no gain.
        promises: paused trials that may come within the bound, likeliest first.
    """

    trial: int
    accuracy: float
    to_teacher: float
    points: int
    epochs: int | None = None
    promises: tuple[Promise, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "promises": [asdict(one) for one in self.promises]}


def nearest(
    trials: Iterable[TrialRecord],
    reach: Reach | None,
    constraints: Sequence[Constraint] = (),
    *,
    levels: Sequence[int] = (),
    promises: Iterable[Promise] = (),
) -> Nearest | None:
    """Return the finished student nearest to the bound; ``None`` if one is within it, or none has finished.

    Args:
        trials: trials of the study.
        reach: the bound.
        constraints: constraints of the study; students that violate another one do not count.
        levels: cumulative epochs of the rungs.
        promises: predictions for paused trials, if there are any.
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
    """Describe the nearest student and the work that might reach the bound, in sentences."""
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
    """Return ``value - below``, rounded down to nine digits: a student exactly ``below`` worse is within the bound."""
    if math.isnan(value):
        return math.nan
    return math.floor(round((value - below) * 1e9, 3)) / 1e9


def _epochs(trial: TrialRecord, bound: float, levels: Sequence[int]) -> int | None:
    """Return the epochs at which the accuracy reaches ``bound`` if it rises with their logarithm as it last did."""
    top = len(levels)
    if top < 2 or any(METRIC not in trial.rungs.get(rung, {}) for rung in (top - 1, top)):
        return None
    last, before = (trial.rungs[rung][METRIC] for rung in (top, top - 1))
    if last <= before:
        return None
    factor = (levels[-1] / levels[-2]) ** min((bound - last) / (last - before), 99.0)
    return math.ceil(levels[-1] * factor) if factor <= MOST_FACTOR else None
