"""Where the teacher's answers to a batch come from: the cache, the teacher itself, or a file of logits."""

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
    """Asks the teacher about every batch, mixed images included: exact, and paid for in every trial.

    Args:
        teacher: what answers.
        embedding: whether its embedding is needed too.
    """

    def __init__(self, teacher: Teacher, *, embedding: bool = False) -> None:
        self._teacher, self._embedding = teacher, embedding

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits, and embedding or ``None``."""
        if self._embedding:
            return self._teacher.embedding(batch.views)
        return self._teacher(batch.views), None


class StoredTeacher:
    """Logits of plain images from a file. Students then see plain images too, for views would not match.

    Args:
        teacher: one with stored logits.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits, mixed where the images are."""
        logits = self._teacher.of_ids(batch.ids)
        return (logits if batch.mixed is None else batch.mixed.logits(logits)), None


class CachedTeacher:
    """Answers from the teacher cache; what is missing there is computed on the same views and stored.

    Args:
        teacher: what answers.
        cache: opened for the policy, the seed and, where it is needed, the embedding.
        policy: how views are made.
        seed: seed of the views.
        embedding: whether the teacher's embedding is needed too.

    Attributes:
        seconds: spent on answers that were missing, with their writing.
    """

    def __init__(
        self, teacher: Teacher, cache: TeacherCache, policy: Policy, seed: int, *, embedding: bool = False
    ) -> None:
        self._teacher, self._cache, self._policy, self._seed = teacher, cache, policy, seed
        self._embedding, self.seconds = embedding, 0.0

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits, and embedding or ``None``, mixed where the images are."""
        began: list[float] = []

        def compute(ids: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            if batch.raw.is_cuda:
                torch.cuda.synchronize(batch.raw.device)  # what the student still computes is no work of the teacher
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
        return batch.mixed.logits(logits), None if embedding is None else batch.mixed.blend(embedding)
