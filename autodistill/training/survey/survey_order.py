"""Order of a survey, such that the first students, however many, are spread over the whole pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autodistill.training.costs.cost_memory import FEATURES

FAMILY_DISTANCE = 1.0
"""Distance between students of different families, in standard deviations of a logarithmic cost."""


def in_turn(families: Sequence[str]) -> list[int]:
    """Return positions such that the first student of each family comes first, then the second of each, and so on."""
    seen: dict[str, int] = {}
    rounds = []
    for index, name in enumerate(families):
        seen[name] = seen.get(name, 0) + 1
        rounds.append((seen[name], index))
    return [index for _, index in sorted(rounds)]


def spread(
    families: Sequence[str], features: Sequence[Mapping[str, float]], *, before: Sequence[int] = ()
) -> list[int]:
    """Return positions of students such that any number of the first ones are far apart.

    The students with the fewest and the most MACs come first, then the median student of every other family, then
    always the student that is farthest from all before it (Gonzalez, 1985). Distances are Euclidean in the standardized
    logarithms of the counted costs, plus ``FAMILY_DISTANCE`` between families.

    Args:
        families: family of each student.
        features: counted costs of each student, with all of ``FEATURES``.
        before: positions that count as taken before all others; they are not in the result.
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
