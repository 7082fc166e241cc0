"""A teacher's logits of plain images, as all checks need them, and small choices of images and members."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from autodistill.core.errors import TeacherError
from autodistill.training.data.datasets import Split
from autodistill.training.teachers.teacher import Teacher

Ask = Callable[[Teacher, Split], Tensor]
"""A function that returns a teacher's logits ``(n, classes)`` of some images."""


def answers(teacher: Teacher, split: Split, *, batch_size: int = 256) -> Tensor:
    """Compute teacher logits ``(n, classes)``, fp32 on the CPU, of a split's plain images.

    Raises:
        TeacherError: the network fails on these images.
    """
    if teacher.by_id:
        return teacher.of_ids(torch.from_numpy(split.ids))
    out = []
    for start in range(0, len(split), batch_size):
        images = torch.from_numpy(split.images[start : start + batch_size]).to(teacher.device)
        try:
            out.append(teacher(images.float().div_(255)).cpu())
        except (RuntimeError, AssertionError, IndexError, TypeError, ValueError) as error:
            shape = tuple(teacher.prepare(images[:1].float()).shape[1:])
            raise TeacherError(
                f"teacher {teacher.name} fails on images of shape {shape}: {error}. Set its input: "
                "--set teacher.options.image_size=N, --set teacher.options.channels=N."
            ) from error
    return torch.cat(out)


def sample(split: Split, count: int) -> Split:
    """Return at most ``count`` evenly spaced images of a split, because it may be sorted by class."""
    every = slice(None, None, math.ceil(len(split) / count))
    return Split(split.images[every], split.labels[every], split.ids[every])


def single(teacher: Teacher) -> list[Teacher]:
    """Return the members of an ensemble, or the teacher itself in a list."""
    return [one for _, member in teacher.members for one in single(member)] if teacher.members else [teacher]
