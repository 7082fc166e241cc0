"""Copying of weights between networks of one family, as far as names and shapes allow.

Layers are matched by name. Tensors of equal shape are copied. If no side of the student's tensor is longer than that of
the other network (a narrower network of the same family), the leading slice is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autodistill.training.students.embeddings import classifier_of


@dataclass(frozen=True)
class Copied:
    """Names of a student's tensors by how they were initialised.

    Attributes:
        whole: tensors copied unchanged.
        sliced: tensors of which the leading slice was copied.
        left: tensors that keep their random values.
        layers: number of matrices and filters among those that were copied; counters and scales alone are no layer.
    """

    whole: tuple[str, ...]
    sliced: tuple[str, ...]
    left: tuple[str, ...]
    layers: int

    def __str__(self) -> str:
        return f"{len(self.whole)} tensors copied, {len(self.sliced)} sliced, {len(self.left)} left random"


@torch.no_grad()
def copy_fitting(student: nn.Module, tensors: Mapping[str, Tensor], *, same_classes: bool) -> Copied:
    """Copy the fitting ones of ``tensors`` into ``student``, in place.

    Args:
        student: the network that is changed.
        tensors: name to tensor of the other network.
        same_classes: whether the classes are the same in the same order; otherwise the classifier is not copied.
    """
    classifier = _name_of(classifier_of(student), student)
    whole: list[str] = []
    sliced: list[str] = []
    left: list[str] = []
    for name, value in student.state_dict().items():
        have = tensors.get(name)
        if (
            have is None
            or have.ndim != value.ndim
            or (name.startswith(classifier) and (not same_classes or len(have) != len(value)))
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
    state = student.state_dict()
    layers = sum(state[name].ndim > 1 for name in (*whole, *sliced))
    return Copied(tuple(whole), tuple(sliced), tuple(left), layers)


def _name_of(layer: nn.Module, model: nn.Module) -> str:
    """Return the prefix of the layer's tensors in the model's state dict."""
    return next(f"{name}." for name, module in model.named_modules() if module is layer)


def _narrower(value: Tensor, have: Tensor) -> bool:
    """Return whether a slice of ``have`` has the shape of ``value`` and the same kernel size."""
    sides = list(zip(value.shape, have.shape, strict=True))
    return all(ours <= theirs for ours, theirs in sides) and all(ours == theirs for ours, theirs in sides[2:])
