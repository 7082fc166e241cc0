"""Random candidates that are new and feasible, for samplers that check neither.

Optuna's samplers propose from the whole space, and propose the same candidate again and again once they prefer it; each
proposal is a stored trial. If one student in a hundred satisfies a bound, a hundred refused trials would be stored for
each one trained, and many refusals in a row would not show what is left. After a few refusals, a candidate is therefore
drawn in memory.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autodistill.core.records import Constraint
from autodistill.search.space.space import Space

TRIES = 5  # refused proposals of the sampler after which a candidate is drawn
DRAWS = 10_000  # most draws for one candidate
SECONDS = 30.0  # most seconds for one candidate, as the costs of each student may have to be counted
_COVER = 20  # draws per candidate of a small space

REFUSED = ("DUPLICATE", "INFEASIBLE", "INFEASIBLE_BUILD", "CRASH")
"""Reason codes of refusals that a random draw may avoid."""


def draw_feasible(
    space: Space, constraints: Sequence[Constraint], refusal: Callable[[dict[str, Any]], str], seed: int
) -> tuple[dict[str, Any] | None, str]:
    """Draw a random candidate that is new and feasible, or explain why none exists.

    Args:
        space: search space.
        constraints: constraints, for the explanation.
        refusal: returns the reason code for which a candidate (parameter name to value) is refused; empty if it is
            accepted.
        seed: seed of the draws.

    Returns:
        The candidate's parameters and an empty text; or ``None`` and the explanation.
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
    return None, _why_none(refused, " and ".join(map(str, constraints)))


def _why_none(refused: Counter[str], bounds: str) -> str:
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
