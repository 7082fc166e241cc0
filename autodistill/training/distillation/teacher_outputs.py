"""Sources of the teacher's outputs for a batch: the cache, the teacher network, or a file of logits."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from autodistill.training.augmentation import policy as views
from autodistill.training.augmentation.policy import Policy
from autodistill.training.loop.trainer import Batch
from autodistill.training.teachers.cache.cache import TeacherCache
from autodistill.training.teachers.teacher import Teacher


class OnlineTeacher:
    """Outputs of a teacher that runs on every batch: exact for mixed images, but computed again in every trial.

    Args:
        teacher: the teacher to run.
        embedding: whether its embedding is needed too.
    """

    def __init__(self, teacher: Teacher, *, embedding: bool = False) -> None:
        self._teacher, self._embedding = teacher, embedding

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return teacher logits (b, classes), and the embedding (b, width) or None."""
        if self._embedding:
            return self._teacher.embedding(batch.views)
        return self._teacher(batch.views), None


class StoredTeacher:
    """Teacher logits read from a file. They belong to plain images, so students train on plain images too.

    Args:
        teacher: a teacher with stored logits (``teacher.by_id``).
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return teacher logits (b, classes), mixed like the images, and None for the embedding."""
        logits = self._teacher.of_ids(batch.ids)
        return _mixed(logits, batch, self._teacher), None


class CachedTeacher:
    """Teacher outputs from the teacher cache; missing ones are computed on the same views and stored.

    Args:
        teacher: the teacher to run for missing outputs.
        cache: cache opened for the policy, the seed and, if needed, the embedding.
        policy: augmentation policy of the views.
        seed: seed of the views.
        embedding: whether the teacher's embedding is needed too.

    Attributes:
        seconds: seconds spent on computing and writing missing outputs.
    """

    def __init__(
        self, teacher: Teacher, cache: TeacherCache, policy: Policy, seed: int, *, embedding: bool = False
    ) -> None:
        self._teacher, self._cache, self._policy, self._seed = teacher, cache, policy, seed
        self._embedding, self.seconds = embedding, 0.0

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return teacher logits (b, classes), and the embedding (b, width) or None, mixed like the images."""
        began: list[float] = []

        def compute(ids: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            if batch.raw.is_cuda:
                torch.cuda.synchronize(batch.raw.device)  # do not count pending work of the student as the teacher's
            began.append(time.monotonic())
            rows = {int(name): row for row, name in enumerate(batch.ids.tolist())}
            chosen = torch.tensor([rows[name] for name in ids.tolist()], device=batch.raw.device)
            pixels = views.apply(self._policy, batch.raw[chosen], batch.ids[chosen], batch.view, self._seed)
            return self._teacher.embedding(pixels) if self._embedding else self._teacher(pixels)

        logits, embedding = self._cache.fetch(batch.ids, batch.view, compute)
        if began:
            self.seconds += time.monotonic() - began[0]
        logits = logits.to(batch.views.device)
        embedding = None if embedding is None else embedding.to(batch.views.device)
        if batch.mixed is None:
            return logits, embedding
        return _mixed(logits, batch, self._teacher), None if embedding is None else batch.mixed.blend(embedding)


def _mixed(logits: Tensor, batch: Batch, teacher: Teacher) -> Tensor:
    """Return the logits of a batch's images, mixed like the images."""
    if batch.mixed is None:
        return logits
    return batch.mixed.label_logits(logits) if teacher.multilabel else batch.mixed.logits(logits)
