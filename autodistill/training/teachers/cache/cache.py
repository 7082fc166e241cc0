"""Teacher cache: the teacher runs on each view once, for all trials, workers and studies on the same data.

A cache is a folder named after its key: data, teacher, view policy with its seed, and preprocessing. ``rows.bin`` is
an array (views, images) of rows (``rows.py``); ``filled.bin`` has one byte per row. The first process that needs a row
computes it. A process locks only the rows that it computes. Several processes can therefore fill an empty cache at the
same time without running the teacher twice on a view, and the locks of a process that dies are released.

A row is written before its byte in ``filled.bin``, and its checksum is verified when a process first reads the view.
Rows damaged by a crash, a power cut or a bad disk are thus detected, reported and computed again. Both files are
sparse and grow with the number of filled rows.
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
_CHUNK_BYTES = 1 << 23  # size of rows that are checked at once; the check needs six times as much memory

Compute = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]
"""Function that returns teacher logits (n, classes), or logits and embedding (n, width), for a view of ``ids`` (n,)."""


class TeacherCache:
    """Outputs of one teacher for the views of one data set; open it with ``TeacherCache.open``.

    Attributes:
        views: number of views that fit; view numbers must be below it.
        forwards: number of images for which this object ran the teacher.
    """

    def __init__(self, folder: Path, form: RowFormat, images: int, views: int) -> None:
        self.folder, self.images, self.views, self.forwards = folder, images, views, 0
        self._form, self._seed = form, int(folder.name, 16)
        self._mutex = threading.Lock()
        held = contextlib.ExitStack()
        self._release = weakref.finalize(self, held.close)  # also if this fails halfway
        in_use = _held(held, os.open(folder / META, os.O_RDONLY | os.O_CLOEXEC))
        fcntl.flock(in_use, fcntl.LOCK_SH)
        os.utime(folder / META)
        self._rows_file = _held(held, _sized(folder / ROWS, images * views * form.dtype.itemsize))
        self._filled_file = _held(held, _sized(folder / FILLED, images * views))
        shape = (views, images)
        # plain arrays over the maps, because np.memmap creates a new wrapper object for every slice
        self._rows = np.asarray(np.memmap(folder / ROWS, dtype=form.dtype, mode="r", shape=shape))
        self._filled = np.asarray(np.memmap(folder / FILLED, dtype=np.uint8, mode="r", shape=shape))
        self._locks = RowLocks(folder / LOCKS)
        held.callback(self._locks.close)
        self._checked: tuple[int, npt.NDArray[np.bool_]] | None = None
        self._requested = np.zeros(images, dtype=np.bool_)

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
        """Open the cache of ``key``, or create it.

        Args:
            root: folder of all caches.
            key: everything that the outputs depend on.
            images: number of images of the data set; ids are below it.
            classes: number of classes of the teacher.
            views: wanted views per image; if they do not fit, the cache has fewer.
            embedding: width of the embedding stored with the logits; 0 stores none.
            max_bytes: largest size on disk; in any case at most nine tenths of the free space.

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
        """Return teacher logits (batch, classes), float32 on the CPU; see ``fetch``."""
        return self.fetch(ids, view, compute)[0]

    def fetch(self, ids: Tensor, view: int, compute: Compute) -> tuple[Tensor, Tensor | None]:
        """Return teacher logits and embedding of one view of some images.

        New outputs are stored and read back, so an empty and a filled cache give the same numbers.

        Args:
            ids: integers (batch,) below ``images``; repeats are allowed.
            view: number of the view, below ``views``.
            compute: function that runs the teacher; it is called with exactly the ids whose view is missing.

        Returns:
            Logits (batch, classes), and embedding (batch, width) or ``None``; float32 on the CPU.

        Raises:
            UsageError: an id or the view is out of range.
            TeacherError: ``compute`` returned outputs of another shape or that are not finite.
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
            checked[fresh] = self._requested[fresh] = True
        logits, embedding = self._form.decode(self._rows[view][wanted])
        return torch.from_numpy(logits), None if embedding is None else torch.from_numpy(embedding)

    def total_forwards(self) -> int:
        """Return the number of images for which any process ever ran the teacher for this cache."""
        return int(np.fromfile(self.folder / FORWARDS, dtype="<i8").sum())

    def bytes_per_view(self) -> int:
        """Return the bytes of one view of one image on disk."""
        return row_bytes(self._form)

    def close(self) -> None:
        """Release files, maps and locks; the object is unusable afterwards. Closing it again does nothing.

        A cache without references closes itself.
        """
        if self._release.alive:
            del self._rows, self._filled  # a map has a file descriptor of its own
            self._release()

    def __enter__(self) -> TeacherCache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _checked_rows(self, view: int) -> npt.NDArray[np.bool_]:
        """Return a mask (images,) of the rows of a view that this process has found filled and intact.

        The caller updates the mask. When a view is first used, the rows of all images requested before, in any view,
        are checked together, which is much faster than one check per batch. Other rows are checked on request.
        """
        if self._checked is None or self._checked[0] != view:
            mask, known = np.zeros(self.images, dtype=np.bool_), np.flatnonzero(self._requested)
            size = max(1, _CHUNK_BYTES // self._form.dtype.itemsize)
            for start in range(0, len(known), size):
                ids = known[start : start + size]
                mask[ids] = self._ready(ids, view)
            self._checked = view, mask
        return self._checked[1]

    def _complete(self, ids: Ints, view: int, compute: Compute) -> None:
        """Fill the rows that are missing or damaged."""
        missing = ids[~self._ready(ids, view)]
        if len(missing):
            with self._mutex:
                self._fill(missing, view, compute)

    def _ready(self, ids: Ints, view: int) -> npt.NDArray[np.bool_]:
        """Return which rows are filled and intact."""
        intact = self._form.intact(self._rows[view][ids], view * self.images + ids, self._seed)
        ready: npt.NDArray[np.bool_] = (self._filled[view][ids] == 1) & intact
        return ready

    def _fill(self, missing: Ints, view: int, compute: Compute) -> None:
        """Compute the rows that no other process is computing, then wait for the others."""
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
        logits, embedding = self._arrays(compute(torch.from_numpy(ids)), len(ids))
        numbers = view * self.images + ids
        rows = self._form.encode(logits, embedding, numbers, self._seed)
        self.forwards += len(ids)
        try:
            _append(self.folder / FORWARDS, np.array([len(ids)], dtype="<i8").tobytes())
            # pwrite instead of the memory map: a full disk then raises an exception instead of killing by a signal
            for number, row in zip(numbers.tolist(), rows, strict=True):
                os.pwrite(self._rows_file, row.tobytes(), number * rows.itemsize)
            for number in numbers.tolist():
                os.pwrite(self._filled_file, b"\x01", number)
        except OSError as error:
            raise ResourceError(
                f"cannot write the teacher cache {self.folder}: {error}. Free space (autodistill cache ls) or "
                "lower its limit."
            ) from error

    def _arrays(self, outputs: Tensor | tuple[Tensor, Tensor], count: int) -> tuple[Floats, Floats | None]:
        """Convert teacher outputs for ``count`` images to arrays; raise a TeacherError if a shape is wrong."""
        logits, embedding = outputs if isinstance(outputs, tuple) else (outputs, None)
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
    """Register the open file to be closed by the stack, and return it."""
    stack.callback(os.close, file)
    return file


def _sized(path: Path, size: int) -> int:
    """Open a file for writing and extend it to ``size`` bytes; a larger file, made for more views, keeps its size."""
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
