"""Encoded pictures of one part, and their decoding into the cache, for sources whose images are files or rows.

A source lists its pictures without decoding them (:class:`Pictures`). This module decodes them as they are read, on
all cores, into one memory-mapped array that all workers share; no more than a few pictures per core are held in memory.
:func:`picture_source` registers a source with all that follows from its list: the check of all files before a study
begins, class names, and the original sizes.
"""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError
from autodistill.core.records import DataSpec, stable_key
from autodistill.training.data.sources.array_cache import cached_array, content_hash, open_array
from autodistill.training.data.sources.base import (
    LabelledImages,
    Part,
    check_options,
    class_readers,
    data_sources,
    file_checks,
    option,
    shape_readers,
)
from autodistill.training.data.sources.decoding import DECODER, FORMATS, MAX_PIXELS, decode_sized, reason
from autodistill.training.data.sources.square import Shapes, shapes_of
from autodistill.training.runtime.cache_folder import cache_folder

DEFAULT_SIZE = 64
OPTIONS = ("channels", "max_pixels")
"""Options of every source of encoded pictures."""

_LISTED = 10  # problems that a message lists
_ADVICE = "repair or remove them"
_ADVICE_BEGUN = "replace each by a readable file; removing one changes the split, and a study needs its original split"
_SAMPLED = 256  # images checked for brightness
_BLACK = 16  # of 255: white of 12-bit values that are stored in 16 bits
_ALMOST_BLACK = (
    f"no pixel is brighter than {_BLACK} of 255. If the files use fewer bits than their format has (8 or 12 of 16), "
    "scale their values up to the whole range of the format."
)
_PER_CORE = 4  # pictures per core that wait to be decoded
_INTERVAL = 0.5  # seconds between two calls of the progress

Encoded = Path | bytes | Exception
"""A picture's file, its bytes, or why it cannot be read."""

Progress = Callable[[int, int], None]
"""``progress(done, total)``: pictures decoded so far, of one part."""


def _silent(done: int, total: int) -> None:
    """Ignore progress."""


_progress: ContextVar[Progress] = ContextVar("progress of decoding", default=_silent)


@contextmanager
def decoding_shown(progress: Progress) -> Iterator[None]:
    """Call ``progress`` about twice a second while pictures are decoded in this context."""
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one part with their labels, in a stable order, not decoded yet.

    Attributes:
        names: file, row or member of each picture, for messages.
        labels: ``int64 (n,)``, indices into ``classes``; or ``int64 (n, classes)`` of 0 and 1.
        classes: class names, in the order of the labels.
        key: key that changes when a picture is added, removed, rewritten or gets another label.
        read: yields ``(position, encoded picture)`` of every picture once, in any order.
        validation: mask ``(n,)`` of the source's own validation images; ``None`` if there are none.
        files: the files of the pictures, if each has one of its own.
        remarks: returns what a user should know about the list before a study begins, one sentence each.
    """

    names: Sequence[str]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    key: str
    read: Callable[[], Iterable[tuple[int, Encoded]]]
    validation: NDArray[np.bool_] | None = None
    files: tuple[Path, ...] = ()
    remarks: Callable[[], Iterable[str]] = tuple


Listing = Callable[[DataSpec, Part, Path], Pictures]
"""``listing(spec, part, cache_dir)``: list the pictures of one part without decoding any."""


class UnreadableError(DataError):
    """Pictures that cannot be decoded.

    Args:
        problems: ``name (reason)`` of each picture.
        total: number of pictures checked.
    """

    def __init__(self, problems: Sequence[str], total: int) -> None:
        self.problems, self.total = tuple(problems), total
        super().__init__(self.message(_ADVICE))

    def message(self, advice: str) -> str:
        """Return the error message: the number of pictures, the advice, and the first ten."""
        count = f"{len(self.problems)} of {self.total} images cannot be read; {advice}:"
        more = len(self.problems) - _LISTED
        return "\n  ".join([count, *self.problems[:_LISTED], *([f"… and {more} more"] if more > 0 else [])])


def picture_source(name: str, *, options: Sequence[str] = ()) -> Callable[[Listing], Listing]:
    """Return a decorator that registers a listing as data source ``name``.

    The documentation of the listing becomes that of the source.

    Args:
        name: name of the source.
        options: its options beside ``channels`` (3; 1 converts to grey) and ``max_pixels``.
    """

    def decorate(listing: Listing) -> Listing:
        @wraps(listing)
        def listed(spec: DataSpec, part: Part, cache_dir: Path) -> Pictures:
            check_options(spec, (*options, *OPTIONS))
            return listing(spec, part, cache_dir)

        @wraps(listing)
        def load(spec: DataSpec, part: Part, cache_dir: Path) -> LabelledImages:
            return _loaded(spec, listed(spec, part, cache_dir), part, cache_dir)

        def check(spec: DataSpec, cache_dir: Path, begun: bool) -> None:
            _check(spec, [listed(spec, part, cache_dir) for part in ("train", "test")], cache_dir, begun)

        def shapes(spec: DataSpec) -> Shapes:
            return _shapes(spec, listed(spec, "train", cache_folder()))

        def classes(spec: DataSpec) -> tuple[str, ...]:
            return listed(spec, "train", cache_folder()).classes

        data_sources.register(name)(load)
        file_checks.register(name)(check)
        shape_readers.register(name)(shapes)
        class_readers.register(name)(classes)
        return listing

    return decorate


def _loaded(spec: DataSpec, pictures: Pictures, part: Part, cache_dir: Path) -> LabelledImages:
    """Return the decoded pictures of one part.

    Raises:
        DataError: Some pictures cannot be read.
    """
    try:
        images, fingerprint = decoded(spec, pictures, cache_dir)
    except UnreadableError as error:
        raise DataError(error.message(_ADVICE_BEGUN if part == "test" else _ADVICE)) from error
    return LabelledImages(
        images,
        pictures.labels,
        pictures.classes,
        pictures.validation,
        stable_key([fingerprint, content_hash(pictures.labels), pictures.classes]),
    )


def _check(spec: DataSpec, parts: Sequence[Pictures], cache_dir: Path, begun: bool) -> None:
    """Decode the pictures of all parts into the cache; parts that are cached already are not decoded again.

    Warns about what the lists remark, and about training images that are almost black.

    Raises:
        DataError: Some pictures cannot be decoded; the message covers all parts.
    """
    for remark in parts[0].remarks():
        warnings.warn(remark, stacklevel=4)
    broken: list[UnreadableError] = []
    for pictures in parts:
        try:
            images, _ = decoded(spec, pictures, cache_dir)
        except UnreadableError as error:
            broken.append(error)
            continue
        if pictures is parts[0] and images[:: max(1, len(images) // _SAMPLED)].max() <= _BLACK:
            warnings.warn(f"{spec.root or spec.source}: {_ALMOST_BLACK}", stacklevel=4)
    if broken:
        problems = [problem for one in broken for problem in one.problems]
        every = UnreadableError(problems, sum(len(pictures.names) for pictures in parts))
        raise DataError(every.message(_ADVICE_BEGUN if begun else _ADVICE))


def decoded(spec: DataSpec, pictures: Pictures, cache_dir: Path) -> tuple[NDArray[np.uint8], str]:
    """Return the decoded pictures ``(n, channels, size, size)``, memory-mapped, and the hash of their pixels.

    Raises:
        UnreadableError: Some pictures cannot be decoded.
    """
    shape, mode, limit = _shape(spec, pictures)
    if spec.image_size is None:
        message = f"{spec.source}: no image_size given, images are scaled to {DEFAULT_SIZE} x {DEFAULT_SIZE}."
        warnings.warn(message, stacklevel=4)

    def fill(out: NDArray[np.uint8]) -> None:
        sizes = decode_all(pictures, out, mode=mode, limit=limit, resize=spec.resize)
        rows = sizes.view(np.uint8)
        cached_array(cache_dir / "images" / _sizes_key(spec, pictures), rows.shape, lambda cache: _copy(cache, rows))

    return cached_array(cache_dir / "images" / _key(spec, pictures), shape, fill)


def decode_all(pictures: Pictures, out: NDArray[np.uint8], *, mode: str, limit: int, resize: str) -> NDArray[np.int32]:
    """Decode every picture into ``out``, ``uint8 (n, channels, size, size)``, on all cores.

    Returns:
        Original width and height of each picture, ``(n, 2)``.

    Raises:
        UnreadableError: Some pictures cannot be decoded.
    """
    total, tell = len(pictures.names), _progress.get()
    sizes, seen = np.zeros((total, 2), dtype=np.int32), np.zeros(total, dtype=bool)
    problems: dict[int, str] = {}

    def one(item: tuple[int, Encoded]) -> None:
        position, encoded = item
        try:
            if isinstance(encoded, Exception):
                raise encoded
            out[position], sizes[position] = decode_sized(encoded, out.shape[-1], mode=mode, limit=limit, resize=resize)
        except Exception as error:  # Pillow's decoders raise many types, including SyntaxError and struct.error
            problems[position] = f"{pictures.names[position]} ({reason(error)})"
        seen[position] = True

    last = time.monotonic()
    for done in _in_threads(one, pictures.read()):
        if time.monotonic() - last >= _INTERVAL:
            tell(done, total)
            last = time.monotonic()
    for position in np.flatnonzero(~seen).tolist():  # the file was shortened after it was listed
        problems[position] = f"{pictures.names[position]} (missing; the file has changed)"
    if problems:
        raise UnreadableError([problems[position] for position in sorted(problems)], total)
    tell(total, total)
    return sizes


def _in_threads(one: Callable[[tuple[int, Encoded]], None], items: Iterable[tuple[int, Encoded]]) -> Iterator[int]:
    """Apply ``one`` to each item on all cores, reading few items ahead; yield the number of finished items."""
    cores = os.cpu_count() or 1
    waiting: deque[Future[None]] = deque()
    done = 0
    with ThreadPoolExecutor(cores) as pool:  # Pillow releases the GIL while it decodes
        for item in items:
            waiting.append(pool.submit(one, item))
            if len(waiting) > _PER_CORE * cores:
                waiting.popleft().result()
                done += 1
                yield done
        while waiting:
            waiting.popleft().result()
            done += 1
            yield done


def _shape(spec: DataSpec, pictures: Pictures) -> tuple[tuple[int, int, int, int], str, int]:
    """Return the shape of the decoded array, Pillow's mode of its images, and the largest number of pixels."""
    channels = option(spec, "channels", 3, low=1, high=3)
    limit = option(spec, "max_pixels", MAX_PIXELS, low=1)
    size, mode = spec.image_size or DEFAULT_SIZE, "L" if channels == 1 else "RGB"
    return (len(pictures.names), len(mode), size, size), mode, limit


def _key(spec: DataSpec, pictures: Pictures) -> str:
    shape, mode, _ = _shape(spec, pictures)
    cropped = spec.resize == "crop"  # not part of the key, so that caches from before the option stay valid
    return stable_key([pictures.key, shape, mode, DECODER, *([] if cropped else [spec.resize])])


def _sizes_key(spec: DataSpec, pictures: Pictures) -> str:
    return stable_key([_key(spec, pictures), "sizes"])


def _shapes(spec: DataSpec, pictures: Pictures) -> Shapes:
    """Return the original sizes, stored when the pictures were decoded; else read from the headers of their files."""
    rows = open_array(cache_folder() / "images" / _sizes_key(spec, pictures))
    total = len(pictures.names)
    if rows is None or rows.shape != (total, 8):
        return shapes_of(pictures.files, FORMATS)
    return Shapes(np.ascontiguousarray(rows).view(np.int32).astype(np.int64), total)


def _copy(out: NDArray[np.uint8], rows: NDArray[np.uint8]) -> None:
    out[:] = rows
