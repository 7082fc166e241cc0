"""Checks the students of a search space before a study: builds them and counts their costs, by family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autodistill.core.errors import InfeasibleError
from autodistill.core.records import Params
from autodistill.training.costs.counts import known_costs
from autodistill.training.runtime import strided
from autodistill.training.students import build as students
from autodistill.training.students.resolution import own_shape

METRICS = ("params", "macs")


@dataclass(frozen=True)
class FamilyRange:
    """Ranges of the costs of one family at one image size.

    Attributes:
        family: name of the family.
        image_size: pixels per side of the images.
        built: number of students that can be built.
        problems: ``student: reason`` of each student that cannot.
        costs: metric to (least, greatest); empty if no student can be built.
    """

    family: str
    image_size: int
    built: int
    problems: tuple[str, ...]
    costs: dict[str, tuple[float, float]]


def family_range(
    family: str, pool: Sequence[Params], *, image_size: int, channels: int, num_classes: int
) -> FamilyRange:
    """Build and count every student of ``pool``, and train the first two for one step.

    Args:
        family: name of the family.
        pool: students of the family; the first two should be the extreme students.
        image_size: pixels per side of the images; a student with a resolution sees them smaller.
        channels: channels of the input.
        num_classes: number of logits.

    Raises:
        UsageError: A student has an invalid family or parameter.
    """
    shape = {"image_size": image_size, "channels": channels}
    found: list[dict[str, float]] = []
    problems: list[str] = []
    for index, student in enumerate(pool):
        name = students.describe(student)
        try:
            model = students.build_student(student, image_size=image_size, channels=channels, num_classes=num_classes)
            seen = own_shape(student, shape)
            if index < 2:
                students.step(strided.protect(model), **seen, num_classes=num_classes, name=name)
            found.append(known_costs(model, **seen, metrics=METRICS))
        except InfeasibleError as error:
            problems.append(f"{name}: {error}")
    ranges = {
        metric: (min(one[metric] for one in found), max(one[metric] for one in found)) for metric in METRICS if found
    }
    return FamilyRange(family, image_size, len(found), tuple(problems), ranges)
