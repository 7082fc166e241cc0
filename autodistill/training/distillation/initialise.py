"""Starts a student from its teacher's weights, as far as their shapes allow.

Layers are matched by name. Equal shapes are copied; where every side of the student's tensor is at most the teacher's
(a narrower network of the same family), the leading slice is taken. Of a classifier only one for the same classes is
copied. A student of the teacher's architecture starts at the teacher's accuracy where both are fed alike: a student
takes the data's own size, mean and standard deviation, and copied weights do not fit where the teacher's are others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autodistill.core.errors import UsageError
from autodistill.training.data.datasets import ImageData
from autodistill.training.students.embeddings import classifier_of
from autodistill.training.teachers.teacher import Preprocessing, Teacher

_ALIKE = 0.05
"""Share of a standard deviation by which means and standard deviations may differ, as those of parts of a set do."""


@dataclass(frozen=True)
class Copied:
    """What was taken over.

    Attributes:
        whole: tensors copied as they are.
        sliced: tensors of which the leading slice was copied.
        left: tensors that keep their random values.
    """

    whole: tuple[str, ...]
    sliced: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.whole)} tensors copied, {len(self.sliced)} sliced, {len(self.left)} left random"


@torch.no_grad()
def initialise(student: nn.Module, teacher: Teacher) -> Copied:
    """Copy what fits from ``teacher`` into ``student``, in place.

    Raises:
        UsageError: the teacher is no network, or nothing fits.
    """
    if not isinstance(teacher.network, nn.Module):
        raise UsageError(f"init: teacher needs a network; {teacher.name} is none. Choose init: random.")
    source = {name.removeprefix("network."): value for name, value in teacher.network.state_dict().items()}
    classifier = _name_of(classifier_of(student), student)
    whole: list[str] = []
    sliced: list[str] = []
    left: list[str] = []
    for name, value in student.state_dict().items():
        have = source.get(name)
        if (
            have is None
            or have.ndim != value.ndim
            or (name.startswith(classifier) and (teacher.preprocessing.class_map or len(have) != len(value)))
        ):
            left.append(name)
        elif have.shape == value.shape:
            value.copy_(have)
            whole.append(name)
        elif _narrower(value, have):
            value.copy_(have[tuple(slice(0, side) for side in value.shape)])
            sliced.append(name)
        else:
            left.append(name)
    if not whole and not sliced:
        raise UsageError(
            f"init: teacher found no layer of {teacher.name} that fits {type(student).__name__}. "
            "Choose init: random, or a student of the teacher's family."
        )
    return Copied(tuple(whole), tuple(sliced), tuple(left))


def unlike_teacher(teacher: Teacher, data: ImageData) -> str:
    """One sentence where students that start from ``teacher`` are fed otherwise than it; empty elsewhere."""
    theirs, ours = teacher.preprocessing, Preprocessing(data.image_size, data.channels, data.mean, data.std)
    if not isinstance(teacher.network, nn.Module) or _alike(theirs, ours):
        return ""
    return (
        f"init: teacher copies weights of {teacher.name}, which is fed {theirs}; students are fed {ours}, so that they "
        "start below its accuracy. A teacher that autodistill teaches on these images is fed as they are."
    )


def _alike(theirs: Preprocessing, ours: Preprocessing) -> bool:
    if (theirs.image_size, theirs.channels) != (ours.image_size, ours.channels):
        return False
    mean, std = (torch.tensor(value).expand(ours.channels) for value in (theirs.mean, theirs.std))
    apart = torch.stack([torch.tensor(ours.mean) - mean, torch.tensor(ours.std) - std]).abs()
    return bool((apart <= _ALIKE * std).all())


def _name_of(layer: nn.Module, model: nn.Module) -> str:
    """Prefix of the layer's tensors in the model's state dict."""
    return next(f"{name}." for name, module in model.named_modules() if module is layer)


def _narrower(value: Tensor, have: Tensor) -> bool:
    """Whether a slice of ``have`` has the shape of ``value`` and the same kernel size."""
    sides = list(zip(value.shape, have.shape, strict=True))
    return all(ours <= theirs for ours, theirs in sides) and all(ours == theirs for ours, theirs in sides[2:])
