"""Unlabelled training images: where they come from, and which of them are left out.

An unlabelled image that is also a validation or test image would flatter every student, so copies are found by their
content. Copies of validation and test images are found even if they are mirrored, or were compressed or scaled again;
of training images and of each other only if their decoded pixels are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError, UnknownNameError, UsageError
from autodistill.core.records import DataSpec, stable_key
from autodistill.training.data.copies import marks
from autodistill.training.data.sources.array_cache import cached_array
from autodistill.training.data.sources.base import LabelledImages, data_sources, folder_at, path_checks
from autodistill.training.data.sources.factory import is_reference
from autodistill.training.data.sources.image_folder import list_unsorted
from autodistill.training.data.sources.pictures import decoded

FOLDER = "folder"
"""Name of the source that takes every image below a folder."""

REASONS = ("kept", "validation", "test", "training", "repeated")
"""Why an image is left out; its position is its code."""

_KEYS = ("source", "root", "options")
_VERSION = 1  # raise it when other images count as copies: stored codes become unused
_THUMB = 16  # pixels per side of the images that are compared first
_FLAT = 2.0  # standard deviation in grey levels below which a thumbnail shows nothing that could be compared
# Largest distances of copies, as shares of the contrast. Of 713 photographs of clothes, JPEG at quality 20, half the
# size and 10 % more brightness stayed below 0.15 (thumbnails, in 99 of 100) and 0.5 (all pixels); the most similar of
# 3,068 others had 0.23 and 0.43.
_ALIKE = 0.15
_SAME = 0.5
_BLOCK = 2048
_GREY = (0.299, 0.587, 0.114)
_WHAT = "unlabelled images, at any depth"

Pixels = NDArray[np.uint8]
Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class UnlabelledImages:
    """Unlabelled training images, without copies of labelled ones.

    Attributes:
        images: ``uint8 (n, channels, side, side)``, possibly memory-mapped.
        ids: ``int64 (n,)``, the labelled images' number plus the position among all unlabelled images.
        left_out: reason (``validation``, ``test``, ``training``, ``repeated``) to the number of images left out.
    """

    images: Pixels
    ids: NDArray[np.int64]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.ids)

    def words(self) -> str:
        """Return the numbers in words: ``1,204 unlabelled images (left out: 3 among the validation images)``."""
        texts = {
            "validation": "among the validation images",
            "test": "among the test images",
            "training": "among the labelled training images",
            "repeated": "repeated",
        }
        left = [f"{count:,} {texts[reason]}" for reason, count in self.left_out.items() if count]
        return f"{len(self):,} unlabelled images" + (f" (left out: {', '.join(left)})" if left else "")


def unlabelled_spec(spec: DataSpec, *, image_size: int | None = None, channels: int = 3) -> DataSpec:
    """Return the specification of the unlabelled images of ``spec``, in the labelled images' size.

    Args:
        spec: images of a study, with ``unlabelled``.
        image_size: pixels per side of the labelled images.
        channels: channels of the labelled images.

    Raises:
        UnknownNameError: The source or a key does not exist. The message lists the nearest names first.
        UsageError: The value is neither text nor a mapping.
        DataError: The folder does not exist.
    """
    given = spec.unlabelled
    if isinstance(given, str):
        folder = Path(given).expanduser()
        named = not folder.is_dir() and (given in data_sources or is_reference(given))
        given = {"source": given} if named else {"source": FOLDER, "root": given}
    if not isinstance(given, Mapping):
        raise UsageError(f"data.unlabelled is {given!r}; give a folder, or a mapping with source, root and options.")
    for key in given:
        if key not in _KEYS:
            raise UnknownNameError("key of data.unlabelled", str(key), _KEYS)
    source, root, options = given.get("source", FOLDER), given.get("root"), dict(given.get("options") or {})
    if source != FOLDER and not is_reference(source) and source not in data_sources:
        raise UnknownNameError("source of data.unlabelled", str(source), [FOLDER, *data_sources.names()])
    if source == FOLDER and root is None:
        raise UsageError("data.unlabelled needs a folder: --unlabelled DIR, or its key root.")
    checked = not is_reference(source) and source in path_checks
    if root is not None and not checked:
        root = str(folder_at(str(root), _WHAT))
    if source in (FOLDER, "image_folder") and channels == 1:
        options.setdefault("channels", 1)
    made = DataSpec(source, root, image_size, None, spec.val_fraction, spec.seed, options, spec.resize)
    if checked:
        path_checks.get(source)(made)
    return made


def read_folder_images(spec: DataSpec, cache_dir: Path) -> LabelledImages:
    """Decode all images below the folder of ``spec`` into the cache, ``uint8 (n, channels, size, size)``.

    Raises:
        DataError: There are no images, or some cannot be read.
    """
    pictures = list_unsorted(folder_at(str(spec.root), _WHAT))
    images, fingerprint = decoded(spec, pictures, cache_dir)
    return LabelledImages(images, pictures.labels, pictures.classes, fingerprint=fingerprint)


def in_channels(pool: LabelledImages, channels: int) -> LabelledImages:
    """Convert images to 1 or 3 channels: grey by the brightness of colours, or three equal channels."""
    if pool.images.shape[1] == channels:
        return pool
    if channels == 3:
        return replace(pool, images=np.repeat(pool.images, 3, axis=1), fingerprint="")
    grey = np.einsum("nchw,c->nhw", pool.images, np.asarray(_GREY, dtype=np.float32))
    return replace(pool, images=np.rint(grey).astype(np.uint8)[:, None], fingerprint="")


def copy_codes(
    images: Pixels, *, validation: Pixels, test: Pixels, training: Pixels, key: list[Any], cache_dir: Path
) -> Codes:
    """Return why each unlabelled image is left out, as positions in ``REASONS``; 0 for those that are kept.

    Args:
        images: unlabelled images ``(n, channels, side, side)``.
        validation: validation images.
        test: test images; only their content is compared.
        training: labelled training images.
        key: JSON values that identify all these images, for the cache.
        cache_dir: folder of the cached codes.
    """

    def fill(out: Codes) -> None:
        out[:] = _codes(images, validation, test, training)

    return cached_array(cache_dir / "images" / stable_key(["copies", _VERSION, *key]), (len(images),), fill)[0]


def refuse_empty(spec: DataSpec, codes: Codes) -> None:
    """Refuse unlabelled images that are all left out.

    Raises:
        DataError: No image is kept.
    """
    if (codes == 0).any():
        return
    raise DataError(
        f"all {len(codes):,} unlabelled images of {spec.root or spec.source} are copies of labelled images or of each "
        "other; give other images, or leave out --unlabelled."
    )


def left_out_counts(codes: Codes) -> dict[str, int]:
    """Return the number of images left out for each reason."""
    counts = np.bincount(codes, minlength=len(REASONS))
    return {reason: int(count) for reason, count in zip(REASONS[1:], counts[1:], strict=True)}


def _codes(images: Pixels, validation: Pixels, test: Pixels, training: Pixels) -> Codes:
    out = np.zeros(len(images), dtype=np.uint8)
    digests = marks(images).tolist()
    first: set[bytes] = set()
    parts = {1: validation, 2: test, 3: training}
    held = {code: set(marks(part).tolist()) for code, part in parts.items()}
    for row, digest in enumerate(digests):
        code = next((code for code, known in held.items() if digest in known), 4 if digest in first else 0)
        out[row] = code
        first.add(digest)
    for code, others in ((1, validation), (2, test)):
        out[near_copies(images, others) & (out == 0)] = code
    return out


def near_copies(images: Pixels, others: Pixels) -> NDArray[np.bool_]:
    """Mark the images that show the same picture as one of ``others``, mirrored or not.

    Two pictures are the same if the distance of their thumbnails of at most 16 x 16 grey levels is below 15 % of the
    contrast (the norm of the deviations from the mean level), and that of all their pixels below 50 %. The mean level
    does not count.

    Args:
        images: ``uint8 (n, channels, side, side)``.
        others: ``uint8 (m, channels, side, side)``.

    Returns:
        Mask ``(n,)``.
    """
    found = np.zeros(len(images), dtype=bool)
    if not len(images) or not len(others):
        return found
    theirs = _thumbnails(others)
    mirrored = theirs[:, :, ::-1]
    every = np.concatenate([theirs, mirrored]).reshape(2 * len(theirs), -1)
    every = every - every.mean(1, keepdims=True)
    contrast = np.linalg.norm(every, axis=1)
    for start in range(0, len(images), _BLOCK):
        ours = _thumbnails(images[start : start + _BLOCK]).reshape(-1, every.shape[1])
        ours = ours - ours.mean(1, keepdims=True)
        norms = np.linalg.norm(ours, axis=1)
        distances = norms[:, None] ** 2 + contrast**2 - 2 * ours @ every.T
        distances[:, contrast < _FLAT * np.sqrt(every.shape[1])] = np.inf
        best = distances.argmin(1)
        near = distances[np.arange(len(ours)), best] <= (_ALIKE * np.maximum(norms, contrast[best])) ** 2
        for row in np.flatnonzero(near):
            other = others[best[row] % len(others)].astype(np.float32)
            other = other[..., ::-1] if best[row] >= len(others) else other
            mine = images[start + row].astype(np.float32)
            other, mine = other - other.mean(), mine - mine.mean()
            found[start + row] = np.linalg.norm(mine - other) <= _SAME * np.linalg.norm(other)
    return found


def _thumbnails(images: Pixels) -> Floats:
    """Return the mean grey levels of at most 16 x 16 areas, ``float32 (n, side, side)``."""
    side = images.shape[-1]
    edges = np.linspace(0, side, min(_THUMB, side) + 1).astype(int)
    out = np.empty((len(images), len(edges) - 1, len(edges) - 1), dtype=np.float32)
    sizes = np.diff(edges).astype(np.float32)
    for start in range(0, len(images), _BLOCK):
        grey = images[start : start + _BLOCK].mean(1, dtype=np.float32)
        sums = np.add.reduceat(np.add.reduceat(grey, edges[:-1], axis=1), edges[:-1], axis=2)
        out[start : start + len(grey)] = sums / (sizes[:, None] * sizes)
    return out
