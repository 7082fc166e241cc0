"""What a trial's student starts from: random weights, pretrained ones, the teacher's or another student's.

A student that starts from weights gets its images normalized as those weights were trained with. Its files for other
programs carry the same mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from autodistill.core.records import Params
from autodistill.training.data.datasets import ImageData
from autodistill.training.distillation.initialise import initialise, statistics_of_teacher
from autodistill.training.students import build as students
from autodistill.training.students.matching import copy_fitting
from autodistill.training.students.starting_weights import Statistics, read_for, source_of, statistics_of
from autodistill.training.teachers.teacher import Teacher
from autodistill.training.trials.inheritance import INHERIT, Parent
from autodistill.training.weights.source import WeightSource

PRETRAINED, TEACHER = "pretrained", "teacher"


@dataclass(frozen=True)
class StartingPoint:
    """How one student is initialised.

    Attributes:
        student: family and parameters.
        statistics: mean and standard deviation per channel that its images are normalized with.
        init: ``random``, ``pretrained``, ``teacher`` or ``inherit``.
        mapping: variant or family, to the text of its weights.
        licence: accepted licences.
        source: the weights, for ``pretrained``; they are read when the network is built.
        parent: the finished student, for ``inherit``; ``None`` if there was none, so that the weights are random.
    """

    student: Params
    statistics: Statistics
    init: str = "random"
    mapping: Mapping[str, str] | None = None
    licence: str = "any"
    source: WeightSource | None = None
    parent: Parent | None = None

    @property
    def key(self) -> list[str]:
        """Texts that tell apart trainings that start from different weights."""
        if self.init == INHERIT:
            return ["" if self.parent is None else self.parent.key]
        return [] if self.source is None else [self.source.identity]

    def facts(self) -> dict[str, Any]:
        """Return what is stored with the student of the weights that it started from; ``None`` for random ones."""
        started = self.source or self.parent
        inherited = {} if self.parent is None else {"inherited": self.parent.number}
        return {"weights": None if started is None else started.facts(), **inherited}

    def build(self, data: ImageData, *, seed: int, teacher: Callable[[], Teacher]) -> nn.Module:
        """Build the network, initialised.

        Args:
            data: the images.
            seed: seed of the random weights.
            teacher: function that returns the teacher, called only for ``init: teacher``.

        Raises:
            UsageError: the student is invalid, or cannot start from these weights.
            InfeasibleError: the network cannot be built for these images.
        """
        weights = None
        if self.source is not None:
            weights = read_for(self.student, self.mapping or {}, data.classes, licence=self.licence)
        model = students.build_student(
            self.student,
            image_size=data.image_size,
            channels=data.channels,
            num_classes=len(data.classes),
            weights=weights,
            seed=seed,
        )
        if self.init == TEACHER:
            initialise(model, teacher())
        if self.parent is not None:
            copy_fitting(model, self.parent.tensors(), same_classes=True)
        return model


def starting_point(
    init: str,
    student: Params,
    data: ImageData,
    *,
    mapping: Mapping[str, str],
    licence: str,
    teacher: Callable[[], Teacher],
    parent: Callable[[], Parent | None],
) -> StartingPoint:
    """Find out what a student starts from, without reading its weights.

    Args:
        init: ``random``, ``pretrained``, ``teacher`` or ``inherit``.
        student: family and parameters.
        data: the images.
        mapping: variant or family, to the text of its weights.
        licence: accepted licences.
        teacher: function that returns the teacher, called only for ``init: teacher``.
        parent: function that returns the student to start from, called only for ``init: inherit``.

    Raises:
        UsageError: the student has no weights, or they are not where they should be.
        InfeasibleError: their licence is not accepted.
    """
    plain = (tuple(data.mean), tuple(data.std))
    if init == TEACHER:
        return StartingPoint(student, statistics_of_teacher(teacher(), data.channels) or plain, init)
    if init == INHERIT:
        found = parent()
        statistics = plain if found is None else (found.mean, found.std)
        return StartingPoint(student, statistics, init, parent=found)
    if init != PRETRAINED:
        return StartingPoint(student, plain, init)
    source = source_of(student, mapping, licence=licence)
    known = statistics_of(student, source, data.channels)
    return StartingPoint(student, known or plain, init, mapping, licence, source)
