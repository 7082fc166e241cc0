"""Which students a survey measures: drawn from the space, those within the bounds on counted costs before others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from autodistill.core.records import Objective, Params, stable_key
from autodistill.search.space.space import Space

SURVEY_SHARE = 0.08
"""Share of a time budget. With the last group of students, which ends when it ends, it stays below a tenth."""
SURVEY_SECONDS = 1.0  # one small student on one slow core: params, MACs and latency together
MIN_POOL, MAX_POOL = 24, 200
LOOKS = 4
"""How many students are looked at for each that is wanted, where a bound lets few pass: a count takes a tenth of a
measurement."""

Fits = Callable[[Params], bool]


def has_survey(setting: Any, objectives: Iterable[Objective]) -> bool:
    """Whether students are surveyed: unless it is off, or no objective is known before training."""
    return setting != "off" and any(one.stage == "known" for one in objectives)


def pool_size(setting: Any, seconds: float | None) -> int:
    """How many students to survey: as asked, else about a twelfth of the time."""
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
    """``count`` different students of a space, or all of them when there are no more; the same for the same seed.

    Args:
        space: whose students.
        count: how many.
        seed: of the draws.
        fits: of students that do not, only so many are taken as bring the pool to ``others``; all that were looked at
            where none fits.
        others: see ``fits``.
        enough: asked before a student is looked at; true ends it with what was found.
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
    """Students without repetition: all in order where there are at most ``count``, else as they are drawn."""
    everything = space.enumerate(count)
    if everything is not None:
        yield from (space.nest(values)["student"] for values in everything)
        return
    rng, seen = np.random.default_rng(seed), set()
    for _ in range(50 * LOOKS * count):
        student = space.nest(space.sample(rng))["student"]
        if (name := stable_key(student)) not in seen:
            seen.add(name)
            yield student
