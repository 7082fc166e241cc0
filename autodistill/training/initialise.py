"""Starts a student from its teacher's weights, as far as their shapes allow.

Layers are matched by name. Equal shapes are copied; where every side of the student's tensor is at most the teacher's
(a narrower network of the same family), the leading slice is taken. Of a classifier only one for the same classes is
copied. A student of the teacher's architecture starts at the teacher's accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autodistill.errors import UsageError
from autodistill.training.embeddings import classifier_of
from autodistill.training.teacher import Teacher


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


def _name_of(layer: nn.Module, model: nn.Module) -> str:
    """Prefix of the layer's tensors in the model's state dict."""
    return next(f"{name}." for name, module in model.named_modules() if module is layer)


def _narrower(value: Tensor, have: Tensor) -> bool:
    """Whether a slice of ``have`` has the shape of ``value`` and the same kernel size."""
    sides = list(zip(value.shape, have.shape, strict=True))
    return all(ours <= theirs for ours, theirs in sides) and all(ours == theirs for ours, theirs in sides[2:])
