"""Round bounds for the table of a report."""

from __future__ import annotations

import math


def round_bound(cost: float, below: float) -> float:
    """Return a round number in [``cost``, ``below``): 1, 2 or 5 times a power of ten, else one with few digits."""
    if cost <= 0:
        return cost
    power = math.floor(math.log10(cost))
    for step in (1, 2, 5, 10):
        if cost <= (bound := float(f"{step}e{power}")):
            break
    for digits in range(16):
        if bound < below:
            return bound
        scale = power - digits - 1
        bound = float(f"{math.ceil(round(cost / 10.0**scale, 6))}e{scale}")
        bound = bound if bound >= cost else cost
    return cost
