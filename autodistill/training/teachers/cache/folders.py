"""Folders of teacher caches: creation, size limits, listing and removal.

``cache.py`` reads and writes the outputs in them. A cache's description is JSON and its data are plain arrays, so
nothing is ever unpickled.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autodistill.core.errors import ResourceError, StoreError, UsageError, nearest
from autodistill.core.records import stable_key
from autodistill.training.teachers.cache.rows import RowFormat

_log = logging.getLogger(__name__)

_FORMAT = 2
META, ROWS, FILLED, LOCKS, FORWARDS = "cache.json", "rows.bin", "filled.bin", "locks", "forwards.bin"
_DISK_SHARE = 0.9  # largest share of the free space that a cache may take


@dataclass(frozen=True)
class CacheKey:
    """Everything that the teacher's outputs depend on; any difference gives another cache.

    Attributes:
        data: fingerprint of the images.
        teacher: hash of the teacher's architecture and weights.
        views: key of the augmentation policy, ``Policy.view_key()``.
        seed: seed of the views.
        preprocessing: preprocessing of a view for the teacher: size, mean, std, precision.
    """

    data: str
    teacher: str
    views: str
    seed: int
    preprocessing: str


@dataclass(frozen=True)
class CacheInfo:
    """A cache on disk, for ``cache ls``.

    Attributes:
        name: name of its folder.
        key: key that it was created for.
        images: number of images of the data set.
        classes: number of classes of the teacher.
        filled: number of filled rows.
        views: number of views that it has room for.
        bytes: size on disk.
        used: time when it was last opened, in seconds since 1970.
    """

    name: str
    key: CacheKey
    images: int
    classes: int
    filled: int
    views: int
    bytes: int
    used: float


def describe(key: CacheKey, form: RowFormat, images: int) -> dict[str, Any]:
    """Return the description of a cache; its hash is the name of the folder."""
    return {"format": _FORMAT, "key": asdict(key), "images": images, **asdict(form)}


def folder_name(meta: dict[str, Any]) -> str:
    """Return 16 hex digits, the hash of a cache's description."""
    return stable_key(meta)


def estimate(*, images: int, classes: int, views: int, embedding: int = 0) -> int:
    """Return the bytes that a full cache takes on disk."""
    return images * views * row_bytes(RowFormat(classes, embedding))


def list_caches(root: str | os.PathLike[str]) -> tuple[CacheInfo, ...]:
    """List the caches below ``root``, most recently used first; skip folders that hold something else."""
    found = []
    for meta_path in Path(root).glob(f"*/{META}"):
        try:
            meta = json.loads(meta_path.read_text())
            filled = np.fromfile(meta_path.parent / FILLED, dtype=np.uint8)
            info = CacheInfo(
                name=meta_path.parent.name,
                key=CacheKey(**meta["key"]),
                images=int(meta["images"]),
                classes=int(meta["classes"]),
                filled=int((filled == 1).sum()),
                views=len(filled) // int(meta["images"]),
                bytes=bytes_on_disk(meta_path.parent),
                used=meta_path.stat().st_mtime,
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found.append(info)
    return tuple(sorted(found, key=lambda info: (-info.used, info.name)))


def remove(root: str | os.PathLike[str], name: str) -> int:
    """Delete the cache whose name is, or uniquely begins with, ``name``.

    Returns:
        Bytes freed.

    Raises:
        UsageError: no cache or several caches have such a name.
        ResourceError: a process has the cache open.
    """
    names = [info.name for info in list_caches(root)]
    matching = [known for known in names if name and known.startswith(name)]
    if len(matching) != 1:
        close = nearest(name, names)
        listed = ", ".join(matching or close or names) or "none there"
        raise UsageError(f"{len(matching)} teacher caches are called {name!r}; there are: {listed}.")
    folder = Path(root) / matching[0]
    file = os.open(folder / META, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        freed = bytes_on_disk(folder)
        shutil.rmtree(folder)
    except BlockingIOError as error:
        raise ResourceError(f"the teacher cache {matching[0]} is in use; end its study first.") from error
    finally:
        os.close(file)
    return freed


def make_room(root: str | os.PathLike[str], limit: int) -> int:
    """Delete the least recently used caches below ``root`` until all together take at most ``limit`` bytes.

    Caches that a process has open are kept, even if the rest still takes more.

    Returns:
        Bytes freed.
    """
    caches = list_caches(root)
    total, freed = sum(info.bytes for info in caches), 0
    for info in reversed(caches):
        if total - freed <= limit:
            break
        try:
            gone = remove(root, info.name)
        except (ResourceError, UsageError):  # in use, or removed by another study a moment ago
            continue
        freed += gone
        _log.warning(
            "removed the teacher cache %s (%.1f MiB), the least recently used: all caches together took more than "
            "%.1f MiB (AUTODISTILL_CACHE_MB)",
            info.name,
            gone / 2**20,
            limit / 2**20,
        )
    return freed


def create(folder: Path, meta: dict[str, Any]) -> None:
    """Create the folder with its description atomically; another process may create it at the same time.

    Raises:
        StoreError: the folder holds something else.
    """
    text = json.dumps(meta, indent=1, sort_keys=True)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        (fresh / META).write_text(text)
        for name in (ROWS, FILLED, FORWARDS):
            (fresh / name).touch()
        try:
            fresh.rename(folder)
        except OSError:
            shutil.rmtree(fresh)
            if not folder.exists():
                raise
    if not (folder / META).is_file() or (folder / META).read_text() != text:
        raise StoreError(f"{folder} is not a teacher cache of this version; delete this folder and start again.")


def views_that_fit(folder: Path, form: RowFormat, images: int, views: int, max_bytes: int | None) -> int:
    """Return how many views fit, at most ``views``, by limit and free space; bytes already on disk count as free."""
    if images < 1 or views < 1:
        raise UsageError(f"a teacher cache needs images and views; got {images} images and {views} views.")
    per_view = images * row_bytes(form)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    paid = bytes_on_disk(folder) if folder.exists() else 0
    room = paid + int(_DISK_SHARE * shutil.disk_usage(existing).free)
    limit = room if max_bytes is None else min(room, max_bytes)
    if limit < per_view:
        raise ResourceError(
            f"one view of {images} images takes {per_view / 2**20:.1f} MiB in the teacher cache, and "
            f"{limit / 2**20:.1f} MiB are allowed or free at {existing}. Raise the limit (training.cache_mb), free "
            "space (autodistill cache ls), or run the teacher without a cache (training.teacher_mode: online)."
        )
    fit = min(views, limit // per_view)
    if fit < views:
        _log.warning(
            "the teacher cache holds %d of %d views: the limit is %.1f MiB; for more views, raise training.cache_mb or "
            "set training.teacher_mode to online",
            fit,
            views,
            limit / 2**20,
        )
    return fit


def row_bytes(form: RowFormat) -> int:
    """Return the bytes of one view of one image."""
    return form.dtype.itemsize + 1


def bytes_on_disk(folder: Path) -> int:
    """Return the disk space of the folder's files; holes of sparse files do not count."""
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir() if path.is_file())
