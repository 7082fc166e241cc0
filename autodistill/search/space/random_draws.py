"""Random candidates that are new and within the bounds, for samplers that know nothing of either.

Optuna's samplers propose from the whole space, again and again the same where they are sure of it, and what they
propose is a stored trial. Where one student in a hundred keeps a bound, a hundred refused trials would be stored for
each that is trained, and many refusals in a row would say nothing of what is left. So after a few of them a candidate
is drawn in memory.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autodistill.core.records import Constraint
from autodistill.search.space.space import Space

TRIES = 5  # of the sampler, for every candidate, before one is drawn
DRAWS = 10_000
SECONDS = 30.0  # where somebody has to count the costs of each student
_COVER = 20  # draws for every candidate of a small space

REFUSED = ("DUPLICATE", "INFEASIBLE", "INFEASIBLE_BUILD", "CRASH")
"""Reasons for which a proposal is refused that a draw may do better on."""


def draw_feasible(
    space: Space, constraints: Sequence[Constraint], refusal: Callable[[dict[str, Any]], str], seed: int
) -> tuple[dict[str, Any] | None, str]:
    """A candidate that nothing speaks against, at random among all of them, or why there is none.

    Args:
        space: what may be proposed.
        constraints: for the words.
        refusal: reason code for which a candidate (parameter name to value) would be refused; empty for a good one.
        seed: of the draws.

    Returns:
        Its parameters and an empty text; or ``None``, and what was found instead.
    """
    rng, size, refused = np.random.default_rng(seed), space.size(), Counter[str]()
    most = DRAWS if size is None else min(DRAWS, _COVER * size)
    until = time.monotonic() + SECONDS
    while refused.total() < most and time.monotonic() < until:
        values = space.sample(rng)
        reason = refusal(values)
        if not reason:
            return values, ""
        refused[reason] += 1
    return None, _nothing(refused, " and ".join(map(str, constraints)))


def _nothing(refused: Counter[str], bounds: str) -> str:
    count, known = refused.total(), refused["DUPLICATE"]
    if known == count:
        return f"space exhausted: {count:,} random candidates were all tried before"
    what = f"is within the bounds ({bounds})" if bounds else "can be built"
    if refused["CRASH"]:
        what += " and does not kill the worker that trains it"
    if known:
        tried = f"{known:,} of {count:,} random candidates were tried before"
        return f"space exhausted: {tried}, and none of the others {what}"
    return (
        f"none of {count:,} random candidates {what}; loosen what is too tight, or use the front sampler, "
        "which looks for such students"
    )
