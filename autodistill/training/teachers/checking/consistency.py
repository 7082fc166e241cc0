"""Check that a teacher is a function: the same image gives the same logits, whenever and beside whatever it is asked.

The teacher's answers are stored once and used in every trial. Where they depend on chance (dropout) or on the other
images of the batch (batch normalization in training mode), the stored ones are one of many. A torch module is put into
evaluation mode when it is loaded; a function may hold a network in training mode, and a module may ignore the mode.

A teacher that passed is remembered in the cache folder, so that a resumed search and other studies do not ask again.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from autodistill.core.errors import TeacherError
from autodistill.training.data.datasets import ImageData, Split
from autodistill.training.teachers.answers import answers, sample, single
from autodistill.training.teachers.teacher import Teacher

FOLDER = "consistent_teachers"
"""Folder in the cache folder with one empty file per teacher that passed, named by its fingerprint."""

_IMAGES = 16
"""Images that are asked three times."""

_BATCH = 6
"""Another batch size. No batch of it has one image, which batch normalization in training mode cannot take."""

_AGAIN = 1e-3
"""Largest difference between two answers for the same batch, relative to the size of the logits."""

_BATCHED = 0.05
"""The same for batches of another size: kernels in bf16, or activations quantized by batch, round differently."""

_FLOOR = -20.0
"""Log-probabilities below it are equal: logarithms of probabilities near 0 differ by their rounding."""


def check_consistent(teacher: Teacher, data: ImageData, *, memory: Path | None = None) -> None:
    """Ask a teacher the same images twice, and in another batch size.

    Args:
        teacher: the teacher; of an ensemble, each member is checked. Stored logits are always consistent.
        data: the images; a few validation images are used.
        memory: cache folder in which teachers that passed are remembered; ``None`` remembers none.

    Raises:
        TeacherError: the answers differ; the message has the largest difference and the likely reason.
    """
    some = sample(data.val, _IMAGES)
    if len(some) % _BATCH == 1:
        some = Split(some.images[:-1], some.labels[:-1], some.ids[:-1])
    for one in single(teacher):
        passed = None if memory is None else memory / FOLDER / one.fingerprint
        if one.by_id or (passed is not None and passed.exists()):
            continue
        _compare(one, some)
        if passed is not None:
            with contextlib.suppress(OSError):  # without the file, the next study asks again
                passed.parent.mkdir(parents=True, exist_ok=True)
                passed.touch()


def _compare(teacher: Teacher, some: Split) -> None:
    first, second = (answers(teacher, some, batch_size=_IMAGES) for _ in range(2))
    if not bool(torch.isfinite(first).all()):
        return  # the preflight refuses it, and says why
    if _apart(first, second, _AGAIN, several=teacher.multilabel):
        raise TeacherError(
            f"teacher {teacher.name} gives other logits when it is asked the same images again (largest difference "
            f"{_largest(first, second):.3g}), so its answers depend on chance. {_REASON}"
        )
    pieces = answers(teacher, some, batch_size=_BATCH)
    if _apart(first, pieces, _BATCHED, several=teacher.multilabel):
        raise TeacherError(
            f"teacher {teacher.name} gives other logits for the same images in batches of {_BATCH} and of "
            f"{len(some)} (largest difference {_largest(first, pieces):.3g}), so its answers depend on the other "
            f"images of the batch. {_REASON}"
        )


_REASON = (
    "A network in it is probably in training mode (dropout, batch normalization): call .eval() on it before the "
    "function is returned, or return the torch module itself, which is put into evaluation mode "
    "(docs/how_to/own_teacher.md)."
)


def _apart(one: Tensor, other: Tensor, share: float, *, several: bool) -> bool:
    """Return whether log-probabilities differ by more than ``share`` of the size of the logits.

    They are those of classes that exclude each other, or with ``several`` labels per image of the presence and the
    absence of each.
    """
    centre = 0.0 if several else one.double().mean(1, keepdim=True)
    size = (one.double() - centre).abs().max().clamp(max=-_FLOOR)
    return bool(_differences(one, other, several).max() > share * size + 1e-6)


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _differences(one: Tensor, other: Tensor, several: bool) -> Tensor:
    first, second = (_log_probabilities(logits.double(), several).clamp_min(_FLOOR) for logits in (one, other))
    return (first - second).abs()


def _log_probabilities(logits: Tensor, several: bool) -> Tensor:
    if several:
        return torch.cat([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=1)
    return logits.log_softmax(1)
