"""A teacher's logits of plain images, stored in the teacher cache so that each image is computed once.

The preflight, the trials of all workers, resumed searches and other studies of the same data and teacher share them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from autodistill.training.augmentation.policy import Policy
from autodistill.training.data.datasets import ImageData, Split
from autodistill.training.teachers.answers import answers
from autodistill.training.teachers.cache.cache import CacheKey, TeacherCache
from autodistill.training.teachers.cache.open_caches import OpenCaches
from autodistill.training.teachers.teacher import Teacher

BATCH = 256


def _no_progress(done: int, total: int) -> None:
    """Ignore progress."""


def cache_key(teacher: Teacher, data: ImageData, policy: Policy, seed: int) -> CacheKey:
    """Return the key of the cache of a teacher's outputs for views.

    Args:
        teacher: the teacher.
        data: the images.
        policy: augmentation policy of the views.
        seed: seed of the views.
    """
    return CacheKey(
        data=data.fingerprint,
        teacher=teacher.fingerprint,
        views=policy.view_key(),
        seed=seed,
        preprocessing=repr((data.image_size, teacher.preprocessing)),
    )


def plain_answers(
    teacher: Teacher,
    split: Split,
    cache: TeacherCache,
    *,
    progress: Callable[[int, int], None] = _no_progress,
) -> Tensor:
    """Return teacher logits ``(n, classes)`` of a split's plain images from the cache; missing ones are computed.

    Args:
        teacher: the teacher.
        split: the images.
        cache: cache of this teacher for ``Policy()``.
        progress: function called with (images computed, images in total).

    Raises:
        TeacherError: the network fails on these images, or gives logits of the wrong number or that are not finite.
    """
    if teacher.by_id:
        return answers(teacher, split)
    rows = {int(name): row for row, name in enumerate(split.ids)}
    done = 0

    def compute(ids: Tensor) -> Tensor:
        nonlocal done
        chosen = [rows[name] for name in ids.tolist()]
        found = answers(teacher, Split(split.images[chosen], split.labels[chosen], split.ids[chosen]))
        done += len(chosen)
        progress(done, len(split))
        return found

    pieces = torch.split(torch.from_numpy(split.ids), BATCH)
    return torch.cat([cache.targets(piece, 0, compute) for piece in pieces])


def asker(
    data: ImageData, caches: OpenCaches, seed: int, progress: Callable[[Teacher, int, int], None]
) -> Callable[[Teacher, Split], Tensor]:
    """Return a function that computes a teacher's logits of plain images of ``data``, using the cache.

    Args:
        data: the images.
        caches: open caches of teacher outputs.
        seed: seed of the data, which trials also use for their views.
        progress: function called with (teacher, images computed, images in total).
    """

    def ask(teacher: Teacher, split: Split) -> Tensor:
        if teacher.by_id:
            return answers(teacher, split)
        key = cache_key(teacher, data, Policy(), seed)
        cache = caches.take(key, images=data.pool_size, classes=len(data.classes), views=1)
        return plain_answers(teacher, split, cache, progress=lambda done, total: progress(teacher, done, total))

    return ask
