"""Cache of ``uint8`` arrays on disk: each is written once and memory-mapped by every worker.

A folder gets its final name only when it is complete, so a killed writer leaves nothing readable. If two processes
write the same array at once, both do the work and one result is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import ResourceError

_RESERVE = 64 * 2**20


def cached_array(
    folder: Path, shape: tuple[int, ...], fill: Callable[[NDArray[np.uint8]], None]
) -> tuple[NDArray[np.uint8], str]:
    """Return the cached array and the hash of its content; create it on first use.

    Args:
        folder: folder of this array in the cache.
        shape: shape of the array.
        fill: writes the content into an empty array of that shape.

    Returns:
        The array, memory-mapped with copy on write, and 16 hex digits (:func:`content_hash`).

    Raises:
        ResourceError: The disk has too little space, or the folder cannot be written.
    """
    ready = _open(folder, shape)
    if ready is not None:
        return ready
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _need_space(folder.parent, int(np.prod(shape)))
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ResourceError(f"cannot write the image cache {folder.parent}: {error}.") from error
    try:
        _write(scratch, shape, fill)
        _publish(scratch, folder)
    except OSError as error:
        raise ResourceError(f"cannot write the image cache {folder}: {error}.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    made = _open(folder, shape)
    if made is None:
        raise ResourceError(f"the image cache {folder} vanished while it was being written.")
    return made


def open_array(folder: Path) -> NDArray[np.uint8] | None:
    """Return a cached array, memory-mapped with copy on write; ``None`` if it is missing or damaged."""
    found = _open(folder, None)
    return None if found is None else found[0]


def content_hash(*arrays: NDArray[np.generic]) -> str:
    """Return a hash (16 hex digits) of the shapes, types and bytes of the arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        for row in range(0, len(array), 4096):  # in blocks, because a memory map need not fit into memory
            digest.update(np.ascontiguousarray(array[row : row + 4096]).data)
    return digest.hexdigest()[:16]


def _write(scratch: Path, shape: tuple[int, ...], fill: Callable[[NDArray[np.uint8]], None]) -> None:
    array = np.lib.format.open_memmap(scratch / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    fill(array)
    array.flush()
    meta = {"sha256": content_hash(array), "shape": list(shape)}
    (scratch / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _publish(scratch: Path, folder: Path) -> None:
    try:
        os.rename(scratch, folder)
    except OSError:
        if _open(folder, None) is None:  # damaged remains of an earlier run
            shutil.rmtree(folder)
            os.rename(scratch, folder)


def _open(folder: Path, shape: tuple[int, ...] | None) -> tuple[NDArray[np.uint8], str] | None:
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        # Copy on write: workers share the pages, and torch does not warn about read-only memory.
        array = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)
        fits = shape is None or array.shape == shape
        return (array, str(meta["sha256"])) if fits and list(array.shape) == meta["shape"] else None
    except (OSError, ValueError, KeyError):
        return None


def _need_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + _RESERVE:
        raise ResourceError(
            f"the image cache needs {size / 2**20:.0f} MiB in {folder}, {free / 2**20:.0f} MiB are free. "
            "Free some space, set AUTODISTILL_CACHE to a folder on a larger disk, or choose a smaller image_size."
        )
