"""What the students of a search space cost, family by family: built, run and counted before a study is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autodistill.core.errors import InfeasibleError
from autodistill.core.records import Params
from autodistill.training.costs.counts import known_costs
from autodistill.training.runtime import strided
from autodistill.training.students import build as students

METRICS = ("params", "macs")


@dataclass(frozen=True)
class FamilyRange:
    """Costs over the students of one family at one image size.

    Attributes:
        built: students that can be trained.
        problems: ``student: why not`` of the others.
        costs: metric to (least, greatest); empty when none can be built.
    """

    family: str
    image_size: int
    built: int
    problems: tuple[str, ...]
    costs: dict[str, tuple[float, float]]


def family_range(
    family: str, pool: Sequence[Params], *, image_size: int, channels: int, num_classes: int
) -> FamilyRange:
    """Build every student of ``pool``, train the first two (the corners) one step, and count them all.

    Raises:
        UsageError: a student that no family understands.
    """
    shape = {"image_size": image_size, "channels": channels}
    found: list[dict[str, float]] = []
    problems: list[str] = []
    for index, student in enumerate(pool):
        name = students.describe(student)
        try:
            model = students.build_student(student, image_size=image_size, channels=channels, num_classes=num_classes)
            if index < 2:
                students.step(strided.protect(model), **shape, num_classes=num_classes, name=name)
            found.append(known_costs(model, **shape, metrics=METRICS))
        except InfeasibleError as error:
            problems.append(f"{name}: {error}")
    ranges = {
        metric: (min(one[metric] for one in found), max(one[metric] for one in found)) for metric in METRICS if found
    }
    return FamilyRange(family, image_size, len(found), tuple(problems), ranges)
