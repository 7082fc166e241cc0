"""Images in class folders: ``root/train/<class>/*``, ``root/val/…``, ``root/test/…``, or ``root/<class>/*``.

Missing splits are created: a fifth of the images is held out as test part with a fixed seed, and the validation images
are split off with the seed of the data.

``pictures.py`` decodes the files. Those that cannot be decoded must be found before a study begins. If the test part
was held out from the same folders, removing a file later would change the split, and earlier trials would have used
other images. The check therefore decodes both parts. It keeps the decoded test images for ``verify``; until then their
pixels are only compared with those of other parts, to find copies.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError
from autodistill.core.records import MULTICLASS, DataSpec, stable_key
from autodistill.training.data.sources.base import Part, label_kinds, need_root
from autodistill.training.data.sources.decoding import SUFFIXES
from autodistill.training.data.sources.pictures import Pictures, picture_source
from autodistill.training.data.sources.splits import SPLITS, TEST_FRACTION, TEST_SEED, check_counts, hold_out

_LISTED_SUFFIXES = 5
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


label_kinds.register("image_folder")(MULTICLASS)


@picture_source("image_folder")
def image_folder(spec: DataSpec, part: Part, cache_dir: Path) -> Pictures:
    """Read images in class folders, without opening files of the other part.

    Options: ``channels`` (3; 1 converts to grey), ``max_pixels`` (pixels of the largest image that is decoded).

    Raises:
        DataError: There are no images or fewer than two classes, or the test folder has unknown classes.
    """
    del cache_dir
    root = need_root(spec, _LAYOUT)
    listing = list_images(root, part)
    return Pictures(
        [str(path) for path in listing.files],
        listing.labels,
        listing.classes,
        listing.key(),
        lambda: enumerate(listing.files),
        listing.validation,
        listing.files,
        lambda: _remarks(root),
    )


def _remarks(root: Path) -> tuple[str, ...]:
    """Return what the folder has beside images in class folders, and that is left out."""
    out = []
    if left := left_out(root):
        out.append(f"{root}: files that are left out by their suffix: {left}. {_READABLE}")
    if loose := _loose(root):
        places = ", ".join(f"{count:,} in {place}" for place, count in loose.items())
        out.append(f"images beside the class folders are left out: {places}. Expected {_LAYOUT}.")
    if folders := _beside_splits(root):
        names = ", ".join(folders[:5]) + (f" and {len(folders) - 5} more" if len(folders) > 5 else "")
        out.append(f"{root}: folders beside those of the splits are left out: {names}. Expected {_LAYOUT}.")
    if special := [path for path in _walk(root) if _is_special(path)]:
        more = f" and {len(special) - 5} more" if len(special) > 5 else ""
        out.append(
            "left out, because they are named pipes, sockets or devices and no files: "
            f"{', '.join(map(str, special[:5]))}{more}."
        )
    return tuple(out)


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
    given = [name for name in ("validation", "test") if named["val" if name == "validation" else name]]
    check_counts(labels, classes, where=f"below {train}", given=given)
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


def list_unsorted(root: Path) -> Pictures:
    """List all image files below ``root`` at any depth, without classes.

    Raises:
        DataError: There are none.
    """
    files = tuple(sorted(path for path in _walk(root) if path.suffix.lower() in SUFFIXES and not _is_special(path)))
    if not files:
        left = left_out(root)
        raise DataError(f"no images below {root}{f' (left out: {left})' if left else ''}. {_READABLE}")
    listing = Listing(root, files, np.zeros(len(files), dtype=np.int64), ("",), None)
    names = [str(path) for path in files]
    return Pictures(names, listing.labels, listing.classes, listing.key(), lambda: enumerate(files), files=files)


def left_out(root: Path) -> str:
    """Count the files in folders below ``root`` whose suffix is not that of an image, e.g. ``50 .gif, 1 .txt``."""
    suffixes = (path.suffix.lower() for path in _walk(root) if path.parent != root and not _is_special(path))
    counts = Counter(suffix for suffix in suffixes if suffix not in SUFFIXES).most_common()
    rest = sum(count for _, count in counts[_LISTED_SUFFIXES:])
    listed = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in counts[:_LISTED_SUFFIXES]]
    return ", ".join([*listed, *([f"{rest:,} others"] if rest else [])])


def _tops(root: Path) -> list[Path]:
    """Return the folders in which class folders are expected: those of the splits, and ``root``."""
    return [root, *(folder for folder in _split_folders(root).values() if folder is not None)]


def _loose(root: Path) -> dict[Path, int]:
    """Count the images that lie beside class folders, by folder."""
    counts = {
        top: sum(path.suffix.lower() in SUFFIXES and path.is_file() for path in _visible(top)) for top in _tops(root)
    }
    return {top: count for top, count in counts.items() if count}


def _beside_splits(root: Path) -> list[str]:
    """Return the names of the folders in ``root`` that are no splits, if there is a folder for training."""
    if _split_folders(root)["train"] is None:
        return []
    return [path.name for path in _visible(root) if path.is_dir() and not _is_split(path.name)]


def _is_special(path: Path) -> bool:
    """Return whether a path is a named pipe, a socket or a device; a broken link is not."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _split_folders(root: Path) -> dict[str, Path | None]:
    """Find the folder of each split below ``root``, ignoring case; ``None`` if a split has no folder.

    Raises:
        DataError: Two folders mean the same split.
    """
    folders = [path for path in _visible(root) if path.is_dir()]
    out: dict[str, Path | None] = {}
    for split, names in SPLITS.items():
        found = [path for path in folders if path.name.lower() in names]
        if len(found) > 1:
            both = " and ".join(repr(path.name) for path in found)
            raise DataError(f"{root} has the folders {both}, which mean the same split; keep one of them.")
        out[split] = found[0] if found else None
    return out


def _is_split(name: str) -> bool:
    return any(name.lower() in names for names in SPLITS.values())


def _is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or the folder of a Mac's extended attributes in a ZIP archive."""
    return name.startswith(".") or name == "__MACOSX"


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if not _is_hidden(path.name))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all paths at any depth that are not folders, except hidden ones and those in hidden folders.

    Links to folders are followed. A folder that several links lead to, or a link back to a folder above, is visited
    once.
    """
    visited: set[tuple[int, int]] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        yield from (Path(where, name) for name in names if not _is_hidden(name))


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
        members = sorted(path for path in inside if path.suffix.lower() in SUFFIXES and not _is_special(path))
        files += members
        labels += [label] * len(members)
    return tuple(files), np.asarray(labels, dtype=np.int64)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a broken link; decoding reports the file
        return -1, -1
    return status.st_size, status.st_mtime_ns
