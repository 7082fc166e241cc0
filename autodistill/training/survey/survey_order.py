"""The order in which students are surveyed: wherever it is broken off, those before are spread over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autodistill.training.costs.cost_memory import FEATURES

FAMILY_DISTANCE = 1.0
"""How far apart two families are, in standard deviations of a logarithmic cost."""


def in_turn(families: Sequence[str]) -> list[int]:
    """Positions so that one of each family comes first, then a second of each, and so on."""
    seen: dict[str, int] = {}
    rounds = []
    for index, name in enumerate(families):
        seen[name] = seen.get(name, 0) + 1
        rounds.append((seen[name], index))
    return [index for _, index in sorted(rounds)]


def spread(
    families: Sequence[str], features: Sequence[Mapping[str, float]], *, before: Sequence[int] = ()
) -> list[int]:
    """Positions of students so that any number of the first ones are far apart.

    The cheapest and the dearest (by MACs) come first, then one of the middle of every family that is left, then always
    the one that is farthest from all before it (Gonzalez, 1985): in standardized logarithms of the counted costs.

    Args:
        families: one per student.
        features: their counted costs, with all of ``FEATURES``.
        before: positions that come before all others, and are not in the result.
    """
    count = len(families)
    if not count:
        return []
    numbers = np.log([[max(float(one[name]), 1.0) for name in FEATURES] for one in features])
    deviation = numbers.std(0)
    points = (numbers - numbers.mean(0)) / np.where(deviation > 1e-9, deviation, 1.0)
    names, macs = np.asarray(families), numbers[:, FEATURES.index("macs")]
    order: list[int] = []
    near = np.full(count, np.inf)

    def take(index: int, *, counts: bool = True) -> None:
        nonlocal near
        apart = np.linalg.norm(points - points[index], axis=1) + FAMILY_DISTANCE * (names != names[index])
        near = np.minimum(near, apart)
        near[index] = -1.0  # taken
        if counts:
            order.append(index)

    for index in before:
        take(index, counts=False)
    for index in (int(np.argmin(macs)), int(np.argmax(macs))):
        if near[index] >= 0:
            take(index)
    for name in dict.fromkeys(families):
        members = np.flatnonzero(names == name)
        if (near[members] >= 0).all():
            take(int(members[np.argsort(macs[members], kind="stable")[len(members) // 2]]))
    while (near >= 0).any():
        take(int(np.argmax(near)))
    return order
