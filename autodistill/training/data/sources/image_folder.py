"""Images in class folders: ``root/train/<class>/*``, ``root/val/…``, ``root/test/…``, or ``root/<class>/*``.

Every image is decoded once, scaled to a square (``decoding.py``), and stored in one memory-mapped ``uint8`` array that
all workers share. Missing splits are created: a fifth of the images is held out as test part with a fixed seed, and the
validation images are split off with the seed of the data.

Files that cannot be decoded must be found before a study begins. If the test part was held out from the same folders,
removing a file later would change the split, and earlier trials would have used other images. ``check_files`` therefore
decodes both parts. It keeps the decoded test images for ``verify``; nothing uses their pixels or labels before.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError
from autodistill.core.records import MULTICLASS, DataSpec, stable_key
from autodistill.training.data.sources.array_cache import cached_array, content_hash
from autodistill.training.data.sources.base import (
    LabelledImages,
    Part,
    check_options,
    class_readers,
    data_sources,
    file_checks,
    label_kinds,
    need_root,
    option,
    shape_readers,
)
from autodistill.training.data.sources.decoding import DECODER, FORMATS, MAX_PIXELS, SUFFIXES, decode, reason
from autodistill.training.data.sources.splits import TEST_FRACTION, TEST_SEED, hold_out
from autodistill.training.data.sources.square import Shapes, shapes_of

DEFAULT_SIZE = 64
_LISTED = 10  # broken files that a message lists
_ADVICE = "repair or remove them"
_ADVICE_BEGUN = "replace each by a readable file; removing one changes the split, and a study needs its original split"
_SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
_LISTED_SUFFIXES = 5
_SAMPLED = 256  # images checked for brightness
_BLACK = 16  # of 255: white of 12-bit values that are stored in 16 bits
_ALMOST_BLACK = (
    f"no pixel is brighter than {_BLACK} of 255. If the files use fewer bits than their format has (8 or 12 of 16), "
    "scale their values up to the whole range of the format."
)
_READABLE = f"Allowed suffixes: {', '.join(sorted(SUFFIXES))}."
_LAYOUT = "class folders with images (root/<class>/*.jpg), or the same below root/train, root/val and root/test"


@dataclass(frozen=True)
class Listing:
    """Files of one part and their labels, in a stable order.

    Attributes:
        root: folder of the data.
        files: the image files.
        labels: ``int64 (n,)``, indices into ``classes``.
        classes: class names, in the order of the labels.
        validation: mask ``(n,)`` of files from a validation folder; ``None`` if there is no such folder.
    """

    root: Path
    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    validation: NDArray[np.bool_] | None

    def key(self) -> str:
        """Return a key that changes when a file is added, removed, renamed, moved between classes or rewritten."""
        facts = [(str(path.relative_to(self.root)), *_stamp(path)) for path in self.files]
        return stable_key([facts, self.classes])


class UnreadableError(DataError):
    """Files that cannot be decoded.

    Args:
        problems: ``path (reason)`` of each file.
        total: number of files checked.
    """

    def __init__(self, problems: Sequence[str], total: int) -> None:
        self.problems, self.total = tuple(problems), total
        super().__init__(self.message(_ADVICE))

    def message(self, advice: str) -> str:
        """Return the error message: the number of files, the advice, and the first ten files."""
        count = f"{len(self.problems)} of {self.total} images cannot be read; {advice}:"
        more = len(self.problems) - _LISTED
        return "\n  ".join([count, *self.problems[:_LISTED], *([f"… and {more} more"] if more > 0 else [])])


label_kinds.register("image_folder")(MULTICLASS)


@data_sources.register("image_folder")
def image_folder(spec: DataSpec, part: Part, cache_dir: Path) -> LabelledImages:
    """Read the images of one part, memory-mapped, without opening files of the other part.

    Options: ``channels`` (3; 1 converts to grey), ``max_pixels`` (pixels of the largest image that is decoded).

    Returns:
        Images ``(n, channels, size, size)``.

    Raises:
        DataError: There are no images or fewer than two classes, or some images cannot be read.
    """
    listing = list_images(need_root(spec, _LAYOUT), part)
    try:
        images, fingerprint = _decoded(spec, listing, cache_dir)
    except UnreadableError as error:
        raise DataError(error.message(_ADVICE_BEGUN if part == "test" else _ADVICE)) from error
    return LabelledImages(
        images,
        listing.labels,
        listing.classes,
        listing.validation,
        stable_key([fingerprint, content_hash(listing.labels), listing.classes]),
    )


@file_checks.register("image_folder")
def check_files(spec: DataSpec, cache_dir: Path, begun: bool) -> None:
    """Decode the files of all parts into the cache; parts that are cached already are not decoded again.

    Warns about files that are left out because of their suffix, and about training images that are almost black.

    Raises:
        DataError: Some files cannot be decoded (the message covers all parts), or the test folder has unknown classes.
    """
    root = need_root(spec, _LAYOUT)
    listings = [list_images(root, "train"), list_images(root, "test")]
    if left := left_out(root):
        warnings.warn(f"{root}: files that are left out by their suffix: {left}. {_READABLE}", stacklevel=3)
    broken: list[UnreadableError] = []
    for listing in listings:
        try:
            images, _ = _decoded(spec, listing, cache_dir)
        except UnreadableError as error:
            broken.append(error)
            continue
        if listing is listings[0] and images[:: max(1, len(images) // _SAMPLED)].max() <= _BLACK:
            warnings.warn(f"{root}: {_ALMOST_BLACK}", stacklevel=3)
    if broken:
        problems = [problem for one in broken for problem in one.problems]
        every = UnreadableError(problems, sum(len(listing.files) for listing in listings))
        raise DataError(every.message(_ADVICE_BEGUN if begun else _ADVICE))


@shape_readers.register("image_folder")
def shapes(spec: DataSpec) -> Shapes:
    """Read the sizes of the training and validation images from the headers of their files."""
    return shapes_of(list_images(need_root(spec, _LAYOUT), "train").files, FORMATS)


@class_readers.register("image_folder")
def classes(spec: DataSpec) -> tuple[str, ...]:
    """Return the names of the class folders."""
    return list_images(need_root(spec, _LAYOUT), "train").classes


def _decoded(spec: DataSpec, listing: Listing, cache_dir: Path) -> tuple[NDArray[np.uint8], str]:
    """Return the decoded images of a listing, memory-mapped, and the hash of their pixels.

    Raises:
        UnreadableError: Some files cannot be decoded.
    """
    check_options(spec, ("channels", "max_pixels"))
    channels = option(spec, "channels", 3, low=1, high=3)
    limit = option(spec, "max_pixels", MAX_PIXELS, low=1)
    if spec.image_size is None:
        message = f"image_folder: no image_size given, images are scaled to {DEFAULT_SIZE} x {DEFAULT_SIZE}."
        warnings.warn(message, stacklevel=3)
    size = spec.image_size or DEFAULT_SIZE
    mode = "L" if channels == 1 else "RGB"
    shape = (len(listing.files), len(mode), size, size)

    def fill(out: NDArray[np.uint8]) -> None:
        decode_all(listing, out, mode=mode, limit=limit, resize=spec.resize)

    cropped = spec.resize == "crop"  # not part of the key, so that caches from before the option stay valid
    key = stable_key([listing.key(), shape, mode, DECODER, *([] if cropped else [spec.resize])])
    return cached_array(cache_dir / "images" / key, shape, fill)


def list_images(root: Path, part: Part) -> Listing:
    """Find the files of one part without opening them.

    Raises:
        DataError: There are no images or fewer than two classes, or a split has classes that training does not have.
    """
    named = _split_folders(root)
    train = named["train"] or root
    classes = _classes(train, root)
    files, labels = _files(train, classes)
    empty = [name for label, name in enumerate(classes) if not (labels == label).any()]
    if empty:
        left = left_out(train)
        raise DataError(
            f"class folders without images below {train}: {', '.join(empty[:5])}"
            f"{f' (left out: {left})' if left else ''}. Expected {_LAYOUT}. {_READABLE}"
        )
    if len(classes) < 2:
        raise DataError(f"{train} has one class ({classes[0]!r}); classification needs at least 2 class folders.")
    _check_counts(train, labels, classes, named)
    if part == "test" and named["test"]:
        test_files, test_labels = _files(named["test"], classes)
        if not test_files:
            raise DataError(f"no images below {named['test']}. Expected {_LAYOUT}. {_READABLE}")
        return Listing(root, test_files, test_labels, classes, None)
    if not named["test"]:
        test = hold_out(labels, TEST_FRACTION, seed=TEST_SEED, stream="test")
        keep = test if part == "test" else ~test
        files, labels = tuple(path for path, kept in zip(files, keep, strict=True) if kept), labels[keep]
    if part == "test" or not named["val"]:
        return Listing(root, files, labels, classes, None)
    val_files, val_labels = _files(named["val"], classes)
    if not val_files:
        raise DataError(
            f"no images below {named['val']}. Add some, or remove the folder to have them split off. {_READABLE}"
        )
    validation = np.arange(len(files) + len(val_files)) >= len(files)
    return Listing(root, files + val_files, np.concatenate([labels, val_labels]), classes, validation)


def left_out(root: Path) -> str:
    """Count the files in folders below ``root`` whose suffix is not that of an image, e.g. ``50 .gif, 1 .txt``."""
    suffixes = (path.suffix.lower() for path in _walk(root) if path.parent != root)
    counts = Counter(suffix for suffix in suffixes if suffix not in SUFFIXES).most_common()
    rest = sum(count for _, count in counts[_LISTED_SUFFIXES:])
    listed = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in counts[:_LISTED_SUFFIXES]]
    return ", ".join([*listed, *([f"{rest:,} others"] if rest else [])])


def _check_counts(
    train: Path, labels: NDArray[np.int64], classes: tuple[str, ...], named: Mapping[str, Path | None]
) -> None:
    """Refuse classes with fewer images than there are splits to create; the message lists the classes."""
    made = [
        "training",
        *([] if named["val"] else ["validation"]),
        *([] if named["test"] else ["the test split (a fifth of all images is put aside for it)"]),
    ]
    counts = np.bincount(labels, minlength=len(classes))
    few = [f"{name!r} ({count})" for name, count in zip(classes, counts, strict=True) if count < len(made)]
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        raise DataError(
            f"classes with too few images below {train}: {', '.join(few[:5])}{more}; at least {len(made)} are needed, "
            f"one each for {', '.join(made[:-1])} and {made[-1]}. Add images, or remove the class."
        )


def decode_all(listing: Listing, out: NDArray[np.uint8], *, mode: str, limit: int, resize: str) -> None:
    """Decode every file into ``out``, ``uint8 (n, channels, size, size)``, on all cores.

    Raises:
        UnreadableError: Some images cannot be decoded.
    """
    size = out.shape[-1]

    def one(index: int) -> str:
        try:
            out[index] = decode(listing.files[index], size, mode=mode, limit=limit, resize=resize)
        except Exception as error:  # Pillow's decoders raise many types, including SyntaxError and struct.error
            return f"{listing.files[index]} ({reason(error)})"
        return ""

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # Pillow releases the GIL while it decodes
        problems = [problem for problem in pool.map(one, range(len(listing.files))) if problem]
    if problems:
        raise UnreadableError(problems, len(listing.files))


def _split_folders(root: Path) -> dict[str, Path | None]:
    """Find the folder of each split below ``root``, ignoring case; ``None`` if a split has no folder.

    Raises:
        DataError: Two folders mean the same split.
    """
    folders = [path for path in _visible(root) if path.is_dir()]
    out: dict[str, Path | None] = {}
    for split, names in _SPLITS.items():
        found = [path for path in folders if path.name.lower() in names]
        if len(found) > 1:
            both = " and ".join(repr(path.name) for path in found)
            raise DataError(f"{root} has the folders {both}, which mean the same split; keep one of them.")
        out[split] = found[0] if found else None
    return out


def _is_split(name: str) -> bool:
    return any(name.lower() in names for names in _SPLITS.values())


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files at any depth, except hidden files and files in hidden folders (``.ipynb_checkpoints``)."""
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(where, name) for name in names if not name.startswith("."))


def _classes(train: Path, root: Path) -> tuple[str, ...]:
    """Return the names of the class folders; if ``train`` is the root itself, folders of splits do not count."""
    folders = [path.name for path in _visible(train) if path.is_dir()]
    classes = tuple(name for name in folders if train != root or not _is_split(name))
    if not classes:
        taken = "" if train == root else f" {train.name!r} is taken as a split; rename it if it is a class."
        raise DataError(f"no class folders below {train}. Expected {_LAYOUT}.{taken}")
    return classes


def _files(folder: Path, classes: tuple[str, ...]) -> tuple[tuple[Path, ...], NDArray[np.int64]]:
    """Return the image files below the class folders of ``folder``, sorted by class and path, and their labels.

    Raises:
        DataError: The folder contains classes that are not in ``classes``.
    """
    found = {path.name: path for path in _visible(folder) if path.is_dir()}
    unknown = sorted(name for name in found if name not in classes and not _is_split(name))
    if unknown:
        raise DataError(f"{folder} has classes without training images: {', '.join(unknown[:5])}.")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inside = _walk(found[name]) if name in found else ()
        members = sorted(path for path in inside if path.suffix.lower() in SUFFIXES)
        files += members
        labels += [label] * len(members)
    return tuple(files), np.asarray(labels, dtype=np.int64)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a broken link; decoding reports the file
        return -1, -1
    return status.st_size, status.st_mtime_ns
