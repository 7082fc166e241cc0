"""Initialisation of a student from its teacher's weights, as far as their shapes allow.

Layers are matched by name. Tensors of equal shape are copied. If no side of the student's tensor is longer than the
teacher's (a narrower network of the same family), the leading slice is copied. A classifier is copied only if its
classes are the same. A student of the teacher's architecture starts at the teacher's accuracy if both get the same
input. Students take the image size, mean and standard deviation of the data; if those of the teacher differ, the
copied weights fit less well.
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
"""Largest difference of means and standard deviations, in standard deviations; subsets of a data set differ by less."""


@dataclass(frozen=True)
class Copied:
    """Names of a student's tensors by how they were initialised.

    Attributes:
        whole: tensors copied unchanged.
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
    """Copy the fitting weights of ``teacher`` into ``student``, in place.

    Raises:
        UsageError: the teacher is not a network, or no layer fits.
    """
    if not isinstance(teacher.network, nn.Module):
        raise UsageError(f"init: teacher needs a network; {teacher.name} is not one. Choose init: random.")
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
    """Return a warning if students that start from ``teacher`` get other input than it; else an empty string."""
    theirs, ours = teacher.preprocessing, Preprocessing(data.image_size, data.channels, data.mean, data.std)
    if not isinstance(teacher.network, nn.Module) or _alike(theirs, ours):
        return ""
    return (
        f"init: teacher copies weights of {teacher.name}, whose input is {theirs}; the input of students is {ours}, so "
        "they start below its accuracy. A teacher trained by autodistill on these images has the input of the students."
    )


def _alike(theirs: Preprocessing, ours: Preprocessing) -> bool:
    if (theirs.image_size, theirs.channels) != (ours.image_size, ours.channels):
        return False
    mean, std = (torch.tensor(value).expand(ours.channels) for value in (theirs.mean, theirs.std))
    apart = torch.stack([torch.tensor(ours.mean) - mean, torch.tensor(ours.std) - std]).abs()
    return bool((apart <= _ALIKE * std).all())


def _name_of(layer: nn.Module, model: nn.Module) -> str:
    """Return the prefix of the layer's tensors in the model's state dict."""
    return next(f"{name}." for name, module in model.named_modules() if module is layer)


def _narrower(value: Tensor, have: Tensor) -> bool:
    """Return whether a slice of ``have`` has the shape of ``value`` and the same kernel size."""
    sides = list(zip(value.shape, have.shape, strict=True))
    return all(ours <= theirs for ours, theirs in sides) and all(ours == theirs for ours, theirs in sides[2:])
