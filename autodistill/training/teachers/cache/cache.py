"""Teacher cache: the teacher answers each view once, for all trials, workers and studies on the same data.

A cache is a folder named after its key: data, teacher, view policy with its seed, and preprocessing.
``rows.bin`` is an array (views, images) of rows (``cache_rows.py``), ``filled.bin`` one byte for each.
Whoever needs a view first fills it. A process locks just the rows that it computes, so that several fill a
cold cache side by side without asking the teacher twice, and those of a process that dies are free again.

A row is written before its byte in ``filled.bin``, and checked on every read: whatever a crash, a power cut
or a bad disk leaves behind is found, reported and filled again. Both files are sparse and grow with what is
filled.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autodistill.core.errors import ResourceError, TeacherError, UsageError
from autodistill.training.runtime.row_locks import RowLocks
from autodistill.training.teachers.cache.folders import (
    FILLED,
    FORWARDS,
    LOCKS,
    META,
    ROWS,
    create,
    describe,
    folder_name,
    row_bytes,
    views_that_fit,
)
from autodistill.training.teachers.cache.folders import CacheInfo as CacheInfo
from autodistill.training.teachers.cache.folders import CacheKey as CacheKey
from autodistill.training.teachers.cache.folders import list_caches as list_caches
from autodistill.training.teachers.cache.folders import remove as remove
from autodistill.training.teachers.cache.rows import Floats, Ints, RowFormat

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 23  # of rows that are checked at once; the check itself takes six times as much

Compute = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]
"""Teacher logits (n, classes) for the view of ``ids`` (n,), or logits and embedding (n, width)."""


class TeacherCache:
    """Answers of one teacher to the views of one data set; open it with ``TeacherCache.open``.

    Attributes:
        views: views that fit; view numbers must be below it.
        forwards: images that this object asked the teacher about.
    """

    def __init__(self, folder: Path, form: RowFormat, images: int, views: int) -> None:
        self.folder, self.images, self.views, self.forwards = folder, images, views, 0
        self._form, self._seed = form, int(folder.name, 16)
        self._mutex = threading.Lock()
        held = contextlib.ExitStack()
        self._release = weakref.finalize(self, held.close)  # also when nobody reads it any more, or this fails halfway
        in_use = _held(held, os.open(folder / META, os.O_RDONLY | os.O_CLOEXEC))
        fcntl.flock(in_use, fcntl.LOCK_SH)
        os.utime(folder / META)
        self._rows_file = _held(held, _sized(folder / ROWS, images * views * form.dtype.itemsize))
        self._filled_file = _held(held, _sized(folder / FILLED, images * views))
        shape = (views, images)
        # plain arrays over the maps: np.memmap wraps every slice of itself anew
        self._rows = np.asarray(np.memmap(folder / ROWS, dtype=form.dtype, mode="r", shape=shape))
        self._filled = np.asarray(np.memmap(folder / FILLED, dtype=np.uint8, mode="r", shape=shape))
        self._locks = RowLocks(folder / LOCKS)
        held.callback(self._locks.close)
        self._checked: tuple[int, npt.NDArray[np.bool_]] | None = None
        self._asked = np.zeros(images, dtype=np.bool_)

    @classmethod
    def open(
        cls,
        root: str | os.PathLike[str],
        key: CacheKey,
        *,
        images: int,
        classes: int,
        views: int,
        embedding: int = 0,
        max_bytes: int | None = None,
    ) -> TeacherCache:
        """Open the cache of ``key``, or begin it.

        Args:
            root: folder of all caches.
            key: what the answers depend on.
            images: images of the data set; ids go from 0 to this.
            classes: of the teacher.
            views: views wanted for each image; fewer where they do not fit.
            embedding: width of the embedding that is kept with the logits; 0 keeps none.
            max_bytes: limit on disk; nine tenths of the free space in any case.

        Raises:
            ResourceError: not even one view fits, or the folder cannot be written.
            StoreError: the folder holds something else.
        """
        form = RowFormat(classes, embedding)
        meta = describe(key, form, images)
        folder = Path(root) / folder_name(meta)
        try:
            fit = views_that_fit(folder, form, images, views, max_bytes)
            create(folder, meta)
            return cls(folder, form, images, fit)
        except OSError as error:
            raise ResourceError(f"cannot write the teacher cache {folder}: {error}.") from error

    def targets(self, ids: Tensor, view: int, compute: Compute) -> Tensor:
        """Teacher logits (batch, classes), float32 on the CPU; see ``fetch``."""
        return self.fetch(ids, view, compute)[0]

    def fetch(self, ids: Tensor, view: int, compute: Compute) -> tuple[Tensor, Tensor | None]:
        """Teacher logits and embedding of one view of some images.

        What comes back has been stored and read, also where it was just computed: a cold and a warm cache
        give the same numbers.

        Args:
            ids: (batch,) integers below ``images``, repeats allowed.
            view: below ``views``.
            compute: asks the teacher; called with exactly the ids whose view is missing.

        Returns:
            Float32 on the CPU: logits (batch, classes), and embedding (batch, width) or ``None``.

        Raises:
            UsageError: an id or view out of range.
            TeacherError: ``compute`` returned something of another shape, or not finite.
            ResourceError: the disk is full.
        """
        wanted = ids.detach().cpu().numpy().astype(np.int64)
        if not 0 <= view < self.views or (len(wanted) and not 0 <= wanted.min() <= wanted.max() < self.images):
            raise UsageError(
                f"the teacher cache holds views 0 to {self.views - 1} of images 0 to {self.images - 1}; got view "
                f"{view} of images {wanted.min(initial=0)} to {wanted.max(initial=0)}."
            )
        checked = self._checked_rows(view)
        fresh = wanted[~checked[wanted]]
        if fresh.size:
            self._complete(np.unique(fresh), view, compute)
            checked[fresh] = self._asked[fresh] = True
        logits, embedding = self._form.decode(self._rows[view][wanted])
        return torch.from_numpy(logits), None if embedding is None else torch.from_numpy(embedding)

    def total_forwards(self) -> int:
        """Images that anyone ever asked the teacher about for this cache."""
        return int(np.fromfile(self.folder / FORWARDS, dtype="<i8").sum())

    def bytes_per_view(self) -> int:
        """Bytes of one view of one image on disk."""
        return row_bytes(self._form)

    def close(self) -> None:
        """Release files, maps and locks; the object is of no use afterwards. Closing it again does nothing.

        A cache that nobody refers to any more closes itself.
        """
        if self._release.alive:
            del self._rows, self._filled  # a map has a file descriptor of its own
            self._release()

    def __enter__(self) -> TeacherCache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _checked_rows(self, view: int) -> npt.NDArray[np.bool_]:
        """Which rows of a view are filled and intact, as far as this process has seen: a mask to be updated.

        When a view is first used, the rows of all images that were asked for before are checked together, which costs a
        small part of what as many checks of one batch each do; the others are looked at when they are asked for.
        """
        if self._checked is None or self._checked[0] != view:
            mask, known = np.zeros(self.images, dtype=np.bool_), np.flatnonzero(self._asked)
            size = max(1, _CHUNK_BYTES // self._form.dtype.itemsize)
            for start in range(0, len(known), size):
                ids = known[start : start + size]
                mask[ids] = self._ready(ids, view)
            self._checked = view, mask
        return self._checked[1]

    def _complete(self, ids: Ints, view: int, compute: Compute) -> None:
        """Make sure that rows are filled and intact."""
        missing = ids[~self._ready(ids, view)]
        if len(missing):
            with self._mutex:
                self._fill(missing, view, compute)

    def _ready(self, ids: Ints, view: int) -> npt.NDArray[np.bool_]:
        """Which rows are filled and intact."""
        intact = self._form.intact(self._rows[view][ids], view * self.images + ids, self._seed)
        ready: npt.NDArray[np.bool_] = (self._filled[view][ids] == 1) & intact
        return ready

    def _fill(self, missing: Ints, view: int, compute: Compute) -> None:
        """Compute the rows that nobody else is computing, then wait for the others."""
        first = view * self.images
        while len(missing):
            try:
                mine = np.array(self._locks.try_acquire((first + missing).tolist()), dtype=np.int64) - first
                if not len(mine):
                    self._locks.acquire(first + int(missing[0]))
                    mine = missing[:1]
                todo = mine[~self._ready(mine, view)]
                if len(todo):
                    self._compute(todo, view, compute)
            finally:
                self._locks.release_all()
            missing = missing[~self._ready(missing, view)]

    def _compute(self, ids: Ints, view: int, compute: Compute) -> None:
        damaged = int((self._filled[view][ids] == 1).sum())
        if damaged:
            _log.warning("%d damaged rows of the teacher cache %s are filled again", damaged, self.folder.name)
        logits, embedding = self._answers(compute(torch.from_numpy(ids)), len(ids))
        numbers = view * self.images + ids
        rows = self._form.encode(logits, embedding, numbers, self._seed)
        self.forwards += len(ids)
        try:
            _append(self.folder / FORWARDS, np.array([len(ids)], dtype="<i8").tobytes())
            # pwrite and not the memory map: a full disk is then an exception and not a signal that kills.
            for number, row in zip(numbers.tolist(), rows, strict=True):
                os.pwrite(self._rows_file, row.tobytes(), number * rows.itemsize)
            for number in numbers.tolist():
                os.pwrite(self._filled_file, b"\x01", number)
        except OSError as error:
            raise ResourceError(
                f"cannot write the teacher cache {self.folder}: {error}. Free space (autodistill cache ls) or "
                "lower its limit."
            ) from error

    def _answers(self, answer: Tensor | tuple[Tensor, Tensor], count: int) -> tuple[Floats, Floats | None]:
        logits, embedding = answer if isinstance(answer, tuple) else (answer, None)
        widths = (self._form.classes, self._form.embedding)
        shapes = tuple(logits.shape), tuple(embedding.shape) if embedding is not None else (count, 0)
        if shapes[0] != (count, widths[0]) or (widths[1] and shapes[1] != (count, widths[1])):
            raise TeacherError(
                f"the teacher answered {count} images with logits {shapes[0]} and embedding {shapes[1]}; the "
                f"cache was opened for {widths[0]} classes and an embedding of width {widths[1]}."
            )
        kept = _array(embedding) if embedding is not None and widths[1] else None
        return _array(logits), kept


def _array(values: Tensor) -> Floats:
    return values.detach().to("cpu", torch.float32).numpy()


def _held(stack: contextlib.ExitStack, file: int) -> int:
    """The open file, which the stack will close."""
    stack.callback(os.close, file)
    return file


def _sized(path: Path, size: int) -> int:
    """Open for writing, with room for ``size`` bytes; a larger file, made for more views, keeps its size."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    if os.fstat(file).st_size < size:
        os.ftruncate(file, size)
    return file


def _append(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(file, data)
    finally:
        os.close(file)
