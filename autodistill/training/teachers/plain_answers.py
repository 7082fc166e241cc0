"""A teacher's answers to plain images, kept in the cache that trials read: every image is asked about once.

The preflight, the trials of every worker, a resume and other studies of the same data and teacher share them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from autodistill.training.augmentation.policy import Policy
from autodistill.training.data.datasets import ImageData, Split
from autodistill.training.teachers.cache.cache import CacheKey, TeacherCache
from autodistill.training.teachers.cache.open_caches import CacheShelf
from autodistill.training.teachers.checks import answers
from autodistill.training.teachers.teacher import Teacher

BATCH = 256


def _unwatched(done: int, total: int) -> None:
    """Progress that nobody watches."""


def cache_key(teacher: Teacher, data: ImageData, policy: Policy, seed: int) -> CacheKey:
    """What a teacher's answers to views depend on.

    Args:
        teacher: what answers.
        data: the images.
        policy: how views are made.
        seed: of the views.
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
    progress: Callable[[int, int], None] = _unwatched,
) -> Tensor:
    """Teacher logits ``(n, classes)`` of a split's plain images, as the cache gives them; missing ones are computed.

    Args:
        teacher: what answers.
        split: images.
        cache: of this teacher, for ``Policy()``.
        progress: called with (done, total) images that were asked about anew.

    Raises:
        TeacherError: the network fails on these images, gives another number of logits, or some that are not finite.
    """
    if teacher.by_id:
        return answers(teacher, split)
    rows = {int(name): row for row, name in enumerate(split.ids)}
    asked = 0

    def compute(ids: Tensor) -> Tensor:
        nonlocal asked
        chosen = [rows[name] for name in ids.tolist()]
        found = answers(teacher, Split(split.images[chosen], split.labels[chosen], split.ids[chosen]))
        asked += len(chosen)
        progress(asked, len(split))
        return found

    pieces = torch.split(torch.from_numpy(split.ids), BATCH)
    return torch.cat([cache.targets(piece, 0, compute) for piece in pieces])


def asker(
    data: ImageData, caches: CacheShelf, seed: int, progress: Callable[[Teacher, int, int], None]
) -> Callable[[Teacher, Split], Tensor]:
    """Asks teachers about plain images of ``data`` by way of the cache.

    Args:
        data: the images.
        caches: where answers are kept.
        seed: of the data, which is that of the views of trials.
        progress: called with the teacher and (done, total) images that were asked about anew.
    """

    def ask(teacher: Teacher, split: Split) -> Tensor:
        if teacher.by_id:
            return answers(teacher, split)
        key = cache_key(teacher, data, Policy(), seed)
        cache = caches.take(key, images=data.pool_size, classes=len(data.classes), views=1)
        return plain_answers(teacher, split, cache, progress=lambda done, total: progress(teacher, done, total))

    return ask
