"""Images of a study: training and validation images for the search; only ``load_test`` reads the test split.

A source (``data/sources/``) returns a pool of labelled images. This module does what all sources need: checks, scaling
to the student's input size, the stratified split by seed, the stratified subset, and channel statistics.
Augmentation is in ``augmentation/policy.py``. Each model normalizes its own input.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError, UnknownNameError, UnlikeImagesError, UsageError
from autodistill.core.records import MULTICLASS, MULTILABEL, DataSpec, TaskKind, stable_key
from autodistill.training.data import sources, unlabelled
from autodistill.training.data.copies import MarkedPart, marks, to_drop, words
from autodistill.training.data.part_checks import PartFacts, class_counts, compare, missing_classes
from autodistill.training.data.sources.array_cache import cached_array, content_hash
from autodistill.training.data.sources.base import (
    LabelledImages,
    Part,
    class_readers,
    data_sources,
    file_checks,
    folder_at,
    label_kinds,
    path_checks,
    shape_readers,
)
from autodistill.training.data.sources.factory import from_factory, is_reference
from autodistill.training.data.sources.pictures import decoding_shown
from autodistill.training.data.sources.pool_checks import checked
from autodistill.training.data.sources.splits import choose_rows, hold_out
from autodistill.training.data.sources.square import Shapes, check_resize, square_arrays
from autodistill.training.data.unlabelled import UnlabelledImages
from autodistill.training.runtime.cache_folder import cache_folder

__all__ = [
    "ImageData",
    "Split",
    "check_files",
    "check_parts",
    "check_source",
    "check_task",
    "class_names",
    "data_sources",
    "decoding_shown",
    "images_key",
    "load_images",
    "load_test",
    "same_images",
    "warn_of_cut",
]

for _module in pkgutil.walk_packages(sources.__path__, f"{sources.__name__}."):
    importlib.import_module(_module.name)


@dataclass(frozen=True, eq=False)
class Split:
    """A subset of a pool's images.

    Attributes:
        images: ``uint8 (n, channels, side, side)``. Of files, a memory map that all workers share.
        labels: ``int64 (n,)``; ``int64 (n, classes)`` of 0 and 1 where images have several labels.
        ids: ``int64 (n,)``, positions in the pool. Caches identify an image by its id, which does not depend on the
            split or subset.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ImageData:
    """Training and validation images of a search, without the test split.

    Attributes:
        train: images to train on.
        val: images to measure accuracy on.
        classes: class names, in the order of the labels.
        image_size: pixels per side.
        channels: 1 or 3.
        mean: mean of the training images per channel, in [0, 1].
        std: standard deviation of the training images per channel, at least 0.001.
        fingerprint: hash (16 hex digits) of the pool's pixels, labels and class names. It does not depend on the split.
            With unlabelled images it covers them, and which of them are left out.
        pool_size: number of images in the pool, with unlabelled ones. All ``ids`` are below it.
        before: height and width of the source's arrays if they were not square; otherwise ``None``.
        held_out: identifier (16 hex digits) of the validation images where they were split off the training images;
            empty where the source has validation images of its own.
        unlabelled: further training images without labels; ``None`` if the study has none.
    """

    train: Split
    val: Split
    classes: tuple[str, ...]
    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    pool_size: int
    before: tuple[int, int] | None = None
    held_out: str = ""
    unlabelled: UnlabelledImages | None = None

    @property
    def kind(self) -> TaskKind:
        """The task that the labels serve: ``multilabel`` if an image can have any number of them."""
        return MULTILABEL if self.train.labels.ndim == 2 else MULTICLASS


def check_source(spec: DataSpec) -> None:
    """Check that the source is registered and that its files exist, without reading images or loading torch.

    A ``module:factory`` source is not imported, because importing runs the user's code.

    Raises:
        UnknownNameError: The source is not registered. The message lists the nearest names first.
        DataError: The folder or file does not exist.
    """
    if not is_reference(spec.source) and spec.source not in data_sources:
        folder = "/" in spec.source or Path(spec.source).is_dir()
        hint = f"A folder of images is written --data image_folder --data-root {spec.source}." if folder else ""
        raise UnknownNameError(data_sources.kind, spec.source, data_sources.names(), hint)
    if not is_reference(spec.source) and spec.source in path_checks:
        path_checks.get(spec.source)(spec)
    elif spec.root is not None:
        folder_at(spec.root, f"the files of data source {spec.source!r}")
    if spec.unlabelled is not None:
        unlabelled.unlabelled_spec(spec)


def check_files(spec: DataSpec, cache_dir: str | os.PathLike[str] | None = None, *, begun: bool = False) -> None:
    """Check before a study begins that every image file can be decoded, including those of the test part.

    The check must come first: once trials exist, removing a broken test file would change the split. No test image is
    returned. Decoded images stay in the cache, where ``load_images`` and ``load_test`` find them.

    Args:
        spec: which images.
        cache_dir: as for :func:`load_images`.
        begun: whether the study has trials already. If so, the message does not propose to remove files.

    Raises:
        DataError: Some files cannot be decoded (the message lists them together), or some classes exist only in the
            test part.
    """
    if not is_reference(spec.source) and spec.source in file_checks:
        file_checks.get(spec.source)(spec, Path(cache_dir) if cache_dir is not None else cache_folder(), begun)


def check_task(spec: DataSpec, kind: TaskKind, data: ImageData | None = None) -> None:
    """Check that the labels of a source serve the task of the study.

    Args:
        spec: which images.
        kind: task of the study.
        data: the images; without them, only a source that is known to have the other kind of labels is refused.

    Raises:
        UsageError: the labels serve another task.
    """
    known = not is_reference(spec.source) and spec.source in label_kinds
    given = data.kind if data is not None else label_kinds.get(spec.source) if known else kind
    if given == kind:
        return
    if given == MULTILABEL:
        raise UsageError(
            f"data source {spec.source!r} gives any number of labels per image, but the study's task is {kind}; set "
            "task: multilabel (--task multilabel)."
        )
    raise UsageError(
        f"data source {spec.source!r} gives one class per image, but task: multilabel needs labels (n, classes) of 0 "
        "and 1. Give a source with several labels per image (docs/how_to/multilabel.md), or leave out the task."
    )


def class_names(spec: DataSpec) -> tuple[str, ...] | None:
    """Return the class names if the source knows them without reading images; otherwise ``None``.

    Raises:
        DataError: The folder has no classes.
    """
    known = not is_reference(spec.source) and spec.source in class_readers
    return class_readers.get(spec.source)(spec) if known else None


def warn_of_cut(spec: DataSpec, data: ImageData) -> None:
    """Warn if cropping to squares removes on average more than a tenth of the pixels of the pool's images.

    Reads the headers of at most 5,000 files of training and validation images.

    Args:
        spec: specification of the images.
        data: the images loaded from ``spec``.
    """
    if spec.resize != "crop":
        return
    if data.before is not None:
        shapes = Shapes(np.tile(np.asarray(data.before, dtype=np.int64), (data.pool_size, 1)), data.pool_size)
    elif not is_reference(spec.source) and spec.source in shape_readers:
        shapes = shape_readers.get(spec.source)(spec)
    else:
        return
    if message := shapes.cut_warning():
        warnings.warn(message, stacklevel=2)


def load_images(spec: DataSpec, cache_dir: str | os.PathLike[str] | None = None) -> ImageData:
    """Load the training and validation images without opening files of the test split.

    Only if there are unlabelled images are test images read, to leave out their copies.

    Args:
        spec: which images, and how they are split.
        cache_dir: folder for decoded images, shared by all workers; by default the user's cache folder.

    Raises:
        UnknownNameError: The source or one of its options does not exist.
        UsageError: The split or the image size is impossible.
        DataError: Images are missing, damaged or unusable.
    """
    folder = Path(cache_dir) if cache_dir is not None else cache_folder()
    pool = _pool(spec, "train", folder)
    validation = pool.validation
    if validation is None:
        names = pool.classes
        validation = hold_out(pool.labels, spec.val_fraction, seed=spec.seed, stream="validation", classes=names)
    _check_validation(pool, validation)
    pool = _fingerprinted(pool)
    train_ids = np.flatnonzero(~validation)
    if spec.drop_duplicates:
        train_ids = _without_copies(spec, pool, validation, folder)
    train_ids = _subset(spec, train_ids, pool.labels)
    train, val = _take(pool, train_ids, folder), _take(pool, np.flatnonzero(validation), folder)
    mean, std = channel_statistics(train.images)
    data = ImageData(
        train=train,
        val=val,
        classes=pool.classes,
        image_size=pool.images.shape[-1],
        channels=pool.images.shape[1],
        mean=mean,
        std=std,
        fingerprint=pool.fingerprint,
        pool_size=len(pool.labels),
        before=pool.before,
        held_out=stable_key([pool.fingerprint, content_hash(val.ids)]) if pool.validation is None else "",
    )
    return data if spec.unlabelled is None else _with_unlabelled(spec, data, folder)


def _with_unlabelled(spec: DataSpec, data: ImageData, folder: Path) -> ImageData:
    """Add the unlabelled images of ``spec`` without copies of labelled ones; their ids follow the labelled pool's."""
    theirs = unlabelled.unlabelled_spec(spec, image_size=data.image_size, channels=data.channels)
    if theirs.source == unlabelled.FOLDER:
        pool = unlabelled.read_folder_images(theirs, folder)
    else:
        pool = unlabelled.in_channels(_pool(theirs, "train", folder), data.channels)
    test = _pool(spec, "test", folder)
    prints = [one.fingerprint or content_hash(one.images) for one in (pool, test)]
    codes = unlabelled.copy_codes(
        pool.images,
        validation=data.val.images,
        test=test.images,
        training=data.train.images,
        key=[data.fingerprint, content_hash(data.train.ids, data.val.ids), *prints],
        cache_dir=folder,
    )
    unlabelled.refuse_empty(theirs, codes)
    kept = _take(replace(pool, fingerprint=prints[0]), np.flatnonzero(codes == 0), folder)
    return replace(
        data,
        fingerprint=stable_key([data.fingerprint, prints[0], content_hash(codes)]),
        pool_size=data.pool_size + len(pool.labels),
        unlabelled=UnlabelledImages(kept.images, data.pool_size + kept.ids, unlabelled.left_out_counts(codes)),
    )


def images_key(data: ImageData) -> str:
    """Return a key that is equal for the same images in the same order with the same splits."""
    return stable_key([data.fingerprint, content_hash(data.train.ids, data.val.ids)])


def same_images(data: ImageData, key: str, spec: DataSpec) -> ImageData:
    """Return ``data``, after checking that it is what another process has read.

    Args:
        data: images that this process has read.
        key: key of the images of the other process (:func:`images_key`); empty to compare nothing.
        spec: where the images come from, for the message.

    Raises:
        UnlikeImagesError: The images, their order or their splits differ.
    """
    if key and images_key(data) != key:
        raise UnlikeImagesError(
            f"data source {spec.source!r} gave other images, or another order, than when the search began. Stored "
            "outputs of the teacher refer to the position of an image, so a source must give the same images in the "
            "same order in every process: sort the names of files, give random numbers a seed, and do not rely on the "
            "order of a set"
        )
    return data


def check_parts(
    spec: DataSpec, data: ImageData, cache_dir: str | os.PathLike[str] | None = None, *, remarks: bool = True
) -> None:
    """Compare training, validation and test part before a study begins; of the test images nothing else is used.

    Warns about classes that are missing in a part, about copies of one picture in several parts or with several labels,
    and about a test part that cannot be read.

    Args:
        spec: which images.
        data: the images loaded from ``spec``.
        cache_dir: as for :func:`load_images`.
        remarks: whether to warn; false only refuses parts that do not agree.

    Raises:
        DataError: Class names, channels or sizes of the test part differ.
    """
    folder = Path(cache_dir) if cache_dir is not None else cache_folder()
    parts = {"training": data.train, "validation": data.val}
    try:
        pool = _pool(spec, "test", folder)
    except DataError as error:
        if remarks:
            warnings.warn(f"the test part cannot be read, so 'verify' will fail: {error}", stacklevel=2)
    else:
        trained = PartFacts(data.classes, data.train.images.shape[1:], data.train.labels.ndim)
        compare(spec.source, trained, PartFacts(pool.classes, pool.images.shape[1:], pool.labels.ndim))
        parts["test"] = _take(_fingerprinted(pool), np.arange(len(pool.labels)), folder)
    if not remarks:
        return
    if lacking := missing_classes({name: one.labels for name, one in parts.items()}, data.classes):
        warnings.warn(f"{spec.root or spec.source}: {lacking}", stacklevel=2)
    marked = {name: MarkedPart(marks(one.images), one.labels) for name, one in parts.items()}
    if found := words(marked, data.classes, dropped=spec.drop_duplicates):
        warnings.warn(f"{spec.root or spec.source}: {found}", stacklevel=2)


def load_test(spec: DataSpec, cache_dir: str | os.PathLike[str] | None = None) -> Split:
    """Load the test images; only ``verify`` may call this. ``ids`` are positions in the test part."""
    folder = Path(cache_dir) if cache_dir is not None else cache_folder()
    pool = _fingerprinted(_pool(spec, "test", folder))
    return _take(pool, np.arange(len(pool.labels)), folder)


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, in [0, 1].

    Computed exactly from histograms of blocks, because a memory map need not fit into memory.

    Args:
        images: ``uint8 (n, channels, height, width)``.

    Returns:
        Means and standard deviations, one per channel; standard deviations are at least 0.001.
    """
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for start in range(0, len(images), 4096):
        block = images[start : start + 4096]
        for channel in range(images.shape[1]):
            counts[channel] += np.bincount(block[:, channel].ravel(), minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    std = np.sqrt(np.maximum(share @ levels**2 - mean**2, 0.0))
    return tuple(mean.tolist()), tuple(np.maximum(std, 1e-3).tolist())


def _pool(spec: DataSpec, part: Part, folder: Path) -> LabelledImages:
    """Read one part of a source, check it, and make its images square in the wanted size."""
    check_resize(spec.resize)
    known = not is_reference(spec.source)
    pool = data_sources.get(spec.source)(spec, part, folder) if known else from_factory(spec, part)
    pool = checked(pool, spec.source)
    height, width = pool.images.shape[2:]
    side = min(height, width) if spec.image_size is None else spec.image_size
    if (height, width) == (side, side):
        return pool
    if not 4 <= side <= 2048:
        raise UsageError(f"image_size is {side}; allowed: 4 to 2048 pixels.")
    if height != width:
        images = square_arrays(pool.images, side, spec.resize)
        return replace(pool, images=images, fingerprint="", before=(height, width))
    return _scaled(pool, side)


def _without_copies(
    spec: DataSpec, pool: LabelledImages, validation: NDArray[np.bool_], folder: Path
) -> NDArray[np.intp]:
    """Return the positions of training images without copies in validation, in test, or with another label.

    Of the test part, only the equality of pixels is used.

    Raises:
        DataError: A class is left without training images.
    """
    every = MarkedPart(marks(pool.images, pool.fingerprint, folder), pool.labels)
    test = _fingerprinted(_pool(spec, "test", folder))
    others = [MarkedPart(marks(test.images, test.fingerprint, folder), test.labels)]
    train = np.flatnonzero(~validation)
    others.append(MarkedPart(every.marks[validation], every.labels[validation]))
    kept = train[~to_drop(MarkedPart(every.marks[train], every.labels[train]), others)]
    before, after = (class_counts(pool.labels[ids], len(pool.classes)) > 0 for ids in (train, kept))
    if lost := [pool.classes[label] for label in np.flatnonzero(before & ~after)]:
        raise DataError(
            f"data.drop_duplicates leaves no training images of {', '.join(map(repr, lost[:5]))}: all have copies in "
            "validation or test, or with another label. Check the labels, or leave the option out."
        )
    return kept


def _fingerprinted(pool: LabelledImages) -> LabelledImages:
    """Return a pool with a fingerprint: cached copies of a memory map are named by it."""
    if pool.fingerprint:
        return pool
    return replace(pool, fingerprint=stable_key([content_hash(pool.images, pool.labels), pool.classes]))


def _check_validation(pool: LabelledImages, validation: NDArray[np.bool_]) -> None:
    """Refuse validation images of fewer than two classes: a constant prediction would be perfect on them."""
    if pool.labels.ndim == 2:
        shares = pool.labels[validation].mean(0) if validation.any() else np.zeros(1)
        if not ((shares > 0) & (shares < 1)).any():
            raise DataError(
                f"no label is both present and absent among the {int(validation.sum())} validation images, so nothing "
                "can be measured on them. Add validation images, or give none at all: then a part of the training "
                "images is split off."
            )
        return
    seen = np.unique(pool.labels[validation])
    if len(seen) < 2:
        name = f"of class {pool.classes[seen[0]]!r}" if len(seen) else "missing"
        raise DataError(
            f"all validation images ({int(validation.sum())}) are {name}; at least 2 of {len(pool.classes)} classes "
            "are needed to measure accuracy. Add images of the other classes (in a folder: val/CLASS), or give no "
            "validation images at all (remove val/): then a part of the training images is split off."
        )


def _scaled(pool: LabelledImages, size: int) -> LabelledImages:
    """Scale square images to ``size`` pixels per side; the result has no fingerprint yet."""
    import torch
    from torch.nn.functional import interpolate

    out = np.empty((*pool.images.shape[:2], size, size), dtype=np.uint8)
    for start in range(0, len(out), 2048):
        block = torch.from_numpy(np.array(pool.images[start : start + 2048])).float()
        scaled = interpolate(block, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
        out[start : start + 2048] = scaled.round_().clamp_(0, 255).to(torch.uint8).numpy()
    return LabelledImages(out, pool.labels, pool.classes, pool.validation)


def _subset(spec: DataSpec, train: NDArray[np.intp], labels: NDArray[np.int64]) -> NDArray[np.intp]:
    if spec.train_size is None or spec.train_size == len(train):
        return train
    if spec.train_size > len(train):
        raise UsageError(
            f"train_size is {spec.train_size}; allowed: up to {len(train)}, "
            f"the images of {spec.source!r} that are not used for validation."
        )
    return train[choose_rows(labels[train], spec.train_size, seed=spec.seed, stream="subset")]


def _take(pool: LabelledImages, ids: NDArray[np.intp], folder: Path) -> Split:
    """Select the images ``ids``; a memory-mapped pool gives a memory map, so that workers share its pages."""
    images = pool.images
    if isinstance(images, np.memmap) and len(ids) < len(images):
        key = stable_key([pool.fingerprint, content_hash(ids)])
        images, _ = cached_array(folder / "images" / key, (len(ids), *images.shape[1:]), _copier(pool.images, ids))
    elif len(ids) < len(images) or not images.flags.writeable:  # torch warns about read-only arrays
        images = images[ids]
    return Split(images, pool.labels[ids], ids.astype(np.int64))


def _copier(images: NDArray[np.uint8], ids: NDArray[np.intp]) -> Callable[[NDArray[np.uint8]], None]:
    def fill(out: NDArray[np.uint8]) -> None:
        for start in range(0, len(ids), 1024):
            out[start : start + 1024] = images[ids[start : start + 1024]]

    return fill
