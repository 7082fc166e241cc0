"""Choice of the students for a survey: drawn from the space, preferring those within the bounds on counted costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from autodistill.core.records import Objective, Params, stable_key
from autodistill.search.space.space import Space

SURVEY_SHARE = 0.08
"""Share of a time budget for the survey. The last group of students may exceed it, to less than a tenth in all."""
SURVEY_SECONDS = 1.0  # one small student on one slow core: params, MACs and latency together
MIN_POOL, MAX_POOL = 24, 200  # fewest and most students of an automatic survey
LOOKS = 4
"""Students to count for each one wanted, if few are within a bound; a count takes a tenth of a measurement's time."""

Fits = Callable[[Params], bool]
"""Function that returns whether a student is within the bounds on counted costs."""


def has_survey(setting: Any, objectives: Iterable[Objective]) -> bool:
    """Return whether there is a survey: it is not off, and an objective is known before training."""
    return setting != "off" and any(one.stage == "known" for one in objectives)


def pool_size(setting: Any, seconds: float | None) -> int:
    """Return how many students to survey: the number in ``setting``, else as many as fit the survey's time share.

    Args:
        setting: Number of students, or ``auto``.
        seconds: Time budget; ``None`` without one.
    """
    if setting != "auto":
        return int(setting)
    if seconds is None:
        return MAX_POOL
    return int(min(MAX_POOL, max(MIN_POOL, SURVEY_SHARE * seconds / SURVEY_SECONDS)))


def draw_pool(
    space: Space,
    count: int,
    *,
    seed: int,
    fits: Fits | None = None,
    others: int = 0,
    enough: Callable[[], bool] = lambda: False,
) -> list[Params]:
    """Draw ``count`` different students from a space, or all if it has fewer. The result depends only on the seed.

    Args:
        space: Search space.
        count: Number of students.
        seed: Random seed.
        fits: If given, students that fit come first. Others are added only until the pool has ``others`` students. If
            none fits, all students that were examined are returned, up to ``count``.
        others: Pool size up to which students that do not fit are added.
        enough: Called before each student; true ends the search for students that fit.
    """
    drawn = _different(space.section("student"), count, seed)
    if fits is None:
        return [student for student, _ in zip(drawn, range(count), strict=False)]
    good: list[Params] = []
    rest: list[Params] = []
    for student, _ in zip(drawn, range(LOOKS * count), strict=False):
        if len(good) == count or ((rest or good) and enough()):
            break
        (good if fits(student) else rest).append(student)
    return good + rest[: max(0, min(others, count) - len(good))] if good else rest[:count]


def _different(space: Space, count: int, seed: int) -> Iterator[Params]:
    """Yield different students: all in order if the space has at most ``count``, else random ones."""
    everything = space.enumerate(count)
    if everything is not None:
        students = (space.nest(values)["student"] for values in everything)
        yield from {stable_key(student): student for student in students}.values()
        return
    rng, seen = np.random.default_rng(seed), set()
    for _ in range(50 * LOOKS * count):
        student = space.nest(space.sample(rng))["student"]
        if (name := stable_key(student)) not in seen:
            seen.add(name)
            yield student
