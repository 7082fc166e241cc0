"""Recognition of outputs that are no logits: the results of a softmax or of a sigmoid."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from autodistill.core.errors import TeacherError
from autodistill.training.data.datasets import ImageData
from autodistill.training.teachers.answers import Ask, answers, sample
from autodistill.training.teachers.teacher import LOGITS, PROBABILITIES, SIGMOID, Teacher

_FEW = 32  # images; enough to tell probabilities from logits
_ROUNDING = 1e-3
"""Tolerance of the sum of probabilities, which may have 16 bits or be rounded to a few digits."""


def refuse_probabilities(teacher: Teacher, data: ImageData, ask: Ask) -> None:
    """Refuse outputs between 0 and 1 if the option ``outputs`` is not set.

    The softmax of probabilities is nearly the same for every image, so students would learn almost nothing from it.

    Raises:
        TeacherError: the outputs are those of a softmax or of a sigmoid; the message has the option that mends it.
    """
    if teacher.preprocessing.outputs:
        return
    some, chosen = sample(data.val, _FEW), teacher.preprocessing.class_map
    if not chosen:
        given = ask(teacher, some)
    else:  # the sum must include all outputs, not only those in class_map
        given = answers(replace(teacher, preprocessing=replace(teacher.preprocessing, class_map=())), some)
    if not _are_shares(given):
        return
    if (given.sum(1) - 1).abs().max() <= _ROUNDING:
        raise TeacherError(
            f"teacher {teacher.name} gives probabilities: its outputs lie between 0 and 1 and sum to 1 for every "
            f"image. Students learn from logits: set --set teacher.options.outputs={PROBABILITIES} to use their "
            f"logarithm, or remove the softmax from the network. If they are logits nevertheless, set "
            f"outputs={LOGITS}."
        )
    raise TeacherError(
        f"teacher {teacher.name} gives outputs of a sigmoid: they lie between 0 and 1 for every image, and do not sum "
        f"to 1. Students learn from logits: set --set teacher.options.outputs={SIGMOID} to use their log-odds, or "
        f"remove the sigmoid from the network. If they are logits nevertheless, set outputs={LOGITS}."
    )


def _are_shares(given: Tensor) -> bool:
    """Return whether all outputs are between 0 and 1, and not all equal."""
    low, high = float(given.min()), float(given.max())
    return 0.0 <= low < high <= 1.0
