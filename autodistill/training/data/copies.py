"""Copies of one picture in several parts or with several labels, found by their decoded pixels.

Two images are copies if the student would see the same pixels. Within one part, copies with the same label are
harmless. Between parts they flatter the accuracy; with different labels they contradict each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autodistill.core.records import stable_key
from autodistill.training.data.sources.array_cache import cached_array

_BYTES = 16

Marks = NDArray[np.void]
"""A mark of 16 bytes for each image, ``(n,)``; equal if and only if the pixels are."""

ADVICE = (
    "Accuracies on copies flatter every student; --drop-duplicates (data.drop_duplicates: true) leaves such images out "
    "of the training."
)


@dataclass(frozen=True, eq=False)
class MarkedPart:
    """One part, for the comparison.

    Attributes:
        marks: a mark for each image.
        labels: ``int64 (n,)``, or ``(n, classes)`` of 0 and 1.
    """

    marks: Marks
    labels: NDArray[np.int64]


def marks(images: NDArray[np.uint8], fingerprint: str = "", folder: Path | None = None) -> Marks:
    """Return a mark for each image ``(n, channels, height, width)``.

    Args:
        images: the images. Marks of a memory map are kept in the cache.
        fingerprint: hash of the images; empty if unknown.
        folder: the cache folder; ``None`` keeps nothing.
    """

    def fill(out: NDArray[np.uint8]) -> None:
        for row, image in enumerate(images):
            digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=_BYTES).digest()
            out[row] = np.frombuffer(digest, dtype=np.uint8)

    shape = (len(images), _BYTES)
    if folder is not None and fingerprint and isinstance(images, np.memmap):
        found, _ = cached_array(folder / "images" / stable_key([fingerprint, "marks"]), shape, fill)
    else:
        found = np.empty(shape, dtype=np.uint8)
        fill(found)
    return np.ascontiguousarray(found).view(np.dtype((np.void, _BYTES)))[:, 0]


def to_drop(train: MarkedPart, others: Sequence[MarkedPart]) -> NDArray[np.bool_]:
    """Mark the training images that have a copy in another part, or a copy in training with another label."""
    out = contradictions(train)
    for other in others:
        out |= np.isin(_text(train.marks), _text(other.marks))
    return out


def contradictions(part: MarkedPart) -> NDArray[np.bool_]:
    """Mark the images that have a copy with another label in the same part."""
    _, groups = np.unique(_text(part.marks), return_inverse=True)
    _, labels = np.unique(part.labels, axis=0, return_inverse=True)
    pairs = np.unique(np.stack([groups, labels.reshape(-1)], axis=1), axis=0)
    kinds = np.bincount(pairs[:, 0])
    found: NDArray[np.bool_] = kinds[groups] > 1
    return found


def words(parts: Mapping[str, MarkedPart], classes: Sequence[str], *, dropped: bool) -> str:
    """Describe the copies across parts and classes in one text; empty if there are none.

    Args:
        parts: ``training``, ``validation`` and ``test``, those that exist.
        classes: class names.
        dropped: whether the training images among them are left out already.
    """
    out = []
    names = list(parts)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            count = int(np.isin(_text(parts[first].marks), _text(parts[second].marks)).sum())
            if count:
                out.append(f"{count:,} {first} images are also in the {second} part")
    if contrary := _contrary(parts, classes):
        out.append(contrary)
    if not out:
        return ""
    left = "They stay, since only training images are left out." if dropped else ADVICE
    return f"copies of the same picture: {'; '.join(out)}. {left}"


def _contrary(parts: Mapping[str, MarkedPart], classes: Sequence[str]) -> str:
    """Count the pictures that have different labels, in any part, with an example."""
    every = np.concatenate([part.marks for part in parts.values()])
    labels = np.concatenate([part.labels for part in parts.values()])
    found = contradictions(MarkedPart(every, labels))
    if not found.any():
        return ""
    pictures = len(np.unique(_text(every[found])))
    first = np.flatnonzero(found)[0]
    same = np.unique(labels[_text(every) == _text(every)[first]], axis=0)[:2]
    shown = " and ".join(_name(label, classes) for label in same)
    return f"{pictures:,} {'picture has' if pictures == 1 else 'pictures have'} copies with different labels ({shown})"


def _name(label: NDArray[np.int64], classes: Sequence[str]) -> str:
    if label.ndim == 0:
        return repr(classes[int(label)])
    return repr(" + ".join(classes[int(index)] for index in np.flatnonzero(label))) if label.any() else "no label"


def _text(marked: Marks) -> NDArray[np.void]:
    """Return marks as pairs of numbers, which numpy can sort and compare fast."""
    return np.ascontiguousarray(marked).view(np.dtype([("a", "<u8"), ("b", "<u8")]))
