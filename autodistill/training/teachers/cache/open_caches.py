"""The most recently used teacher caches of a worker, kept open.

Each open cache takes six file descriptors and two memory maps, and a search over a range of augmentation strengths
needs a different cache in every trial. Their number is therefore limited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from autodistill.core.records import stable_key
from autodistill.training.runtime.cache_folder import teacher_cache_bytes
from autodistill.training.teachers.cache.cache import CacheKey, TeacherCache
from autodistill.training.teachers.cache.folders import make_room

KEPT = 8
"""Number of caches kept open: a trial uses at most two; later trials may reuse the others."""


class OpenCaches(Mapping[str, TeacherCache]):
    """Open caches by key, views and embedding width; the most recently used is last.

    A cache that is dropped here closes itself (``TeacherCache``) as soon as no training reads it any more.

    Args:
        root: folder of all caches.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, TeacherCache] = {}

    def take(
        self, key: CacheKey, *, images: int, classes: int, views: int, embedding: int = 0, max_bytes: int | None = None
    ) -> TeacherCache:
        """Return the cache of ``key``, opening it if necessary; arguments and errors as in ``TeacherCache.open``."""
        name = stable_key([asdict(key), views, embedding])
        cache = self._open.pop(name, None)
        if cache is None:
            while len(self._open) >= KEPT:
                del self._open[next(iter(self._open))]
            make_room(self._root, teacher_cache_bytes())
            cache = TeacherCache.open(
                self._root, key, images=images, classes=classes, views=views, embedding=embedding, max_bytes=max_bytes
            )
        self._open[name] = cache
        return cache

    def __getitem__(self, name: str) -> TeacherCache:
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)
