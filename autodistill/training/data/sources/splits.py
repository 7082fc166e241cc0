"""Stratified random choices of images: which are held out, and which are kept in a subset.

The given seed is the only source of randomness. Every worker, resumed study and retraining therefore computes the same
split, and no split is stored.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError, UsageError

TEST_SEED = 20_240_229
"""Seed of test sets held out here. It is fixed, so that no validation split ever contains a test image."""

TEST_FRACTION = 0.2
"""Share of the images held out as test set if a source has none."""

_MOST_EXCHANGES = 50
"""Most pairs of images that are exchanged for a better balance of labels; each takes one pass over all labels."""


SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Names of each split, in small letters, as folders and as values of a table."""


def check_counts(labels: NDArray[np.int64], classes: Sequence[str], *, where: str, given: Collection[str]) -> None:
    """Refuse classes with fewer training images than there are splits to create.

    Args:
        labels: class of each training image, ``(n,)``, or 0 and 1 for each label, ``(n, labels)``.
        classes: class names; those without any image are ignored.
        where: where the images are, for the message: ``below photos/train``.
        given: the splits that need not be created: ``validation``, ``test``.

    Raises:
        DataError: Some classes have too few images; the message lists them.
    """
    made = [
        "training",
        *([] if "validation" in given else ["validation"]),
        *([] if "test" in given else ["the test split (a fifth of all images is put aside for it)"]),
    ]
    counts = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=len(classes))
    few = [f"{name!r} ({count})" for name, count in zip(classes, counts, strict=True) if 0 < count < len(made)]
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        raise DataError(
            f"classes with too few images {where}: {', '.join(few[:5])}{more}; at least {len(made)} are needed, "
            f"one each for {', '.join(made[:-1])} and {made[-1]}. Add images, or remove the class."
        )


def choose_rows(labels: NDArray[np.int64], count: int, *, seed: int, stream: str) -> NDArray[np.bool_]:
    """Mark ``count`` images so that every class keeps its share (largest remainders; at least one per class).

    For several labels per image, iterative stratification keeps the share of images of each label as nearly as the
    combinations allow (Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of multi-label data").

    Args:
        labels: class of each image, ``(n,)``, or 0 and 1 for each label, ``(n, labels)``.
        count: number of images to mark.
        seed: seed of the choice.
        stream: name of the choice; different names give independent choices for one seed.

    Returns:
        Boolean mask ``(n,)`` with ``count`` true entries.

    Raises:
        UsageError: ``count`` is less than the number of classes or more than the number of images.
    """
    if labels.ndim == 2:
        if not 1 <= count <= len(labels):
            raise UsageError(f"cannot choose {count} of {len(labels)} images; allowed: 1 to {len(labels)}.")
        return _choose_by_labels(labels > 0, count, np.random.default_rng([seed, *stream.encode()]))
    classes, sizes = np.unique(labels, return_counts=True)
    if not len(classes) <= count <= len(labels):
        raise UsageError(
            f"cannot choose {count} of {len(labels)} images in {len(classes)} classes; "
            f"allowed: {len(classes)} to {len(labels)}."
        )
    rng = np.random.default_rng([seed, *stream.encode()])
    mask = np.zeros(len(labels), dtype=bool)
    for label, take in zip(classes, _shares(sizes, count), strict=True):
        members = np.flatnonzero(labels == label)
        mask[rng.permutation(members)[:take]] = True
    return mask


def hold_out(
    labels: NDArray[np.int64], fraction: float, *, seed: int, stream: str, classes: Sequence[str] = ()
) -> NDArray[np.bool_]:
    """Mark the share ``fraction`` of the images, leaving at least one image of every class unmarked.

    Args:
        labels: class of each image, ``(n,)``, or 0 and 1 for each label, ``(n, labels)``.
        fraction: share to mark.
        seed: seed of the choice.
        stream: name of the split.
        classes: names of the labels, for messages.

    Returns:
        Boolean mask ``(n,)``, true for held-out images.

    Raises:
        UsageError: The fraction is not inside (0, 1).
        DataError: A class has a single image, or the fraction leaves a class without unmarked images.
    """
    if not 0.0 < fraction < 1.0:
        raise UsageError(f"the held-out fraction is {fraction}; allowed: more than 0 and less than 1.")
    several = labels.ndim == 2
    one = "label" if several else "class"
    found, sizes = (labels.sum(0).nonzero()[0], labels.sum(0)) if several else np.unique(labels, return_counts=True)
    sizes = sizes[found] if several else sizes
    if len(sizes) and sizes.min() < 2:
        label = int(found[sizes.argmin()])
        name = repr(classes[label]) if classes else str(label)
        raise DataError(
            f"{one} {name} has {sizes.min()} image; at least 2 are needed, one for training and one for the "
            f"{stream} split. Add images, or remove the {one}."
        )
    least = 1 if several else len(found)
    count = max(round(fraction * len(labels)), least)
    mask = choose_rows(labels, min(count, len(labels) - least), seed=seed, stream=stream)
    left = labels[~mask].any(0).sum() if several else len(np.unique(labels[~mask]))
    if left < len(found):
        raise DataError(f"holding out {fraction:.0%} for the {stream} split leaves a {one} without training images.")
    return mask


def _choose_by_labels(labels: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mark ``count`` rows of ``labels (n, labels)`` by iterative stratification into the unmarked and the marked.

    The rarest label is distributed first, each of its images to the part that lacks most of it. A label with two
    images or more is wanted at least once in each part. Then pairs of a marked and an unmarked image are exchanged
    while that brings the numbers of marked images nearer to those that are wanted.
    """
    total = len(labels)
    images = labels.sum(0).astype(np.float64)
    share = np.where(
        images >= 2, np.clip(images * count / total, 1.0, np.maximum(images - 1.0, 1.0)), images * count / total
    )
    wanted, room = [images - share, share.copy()], [total - count, count]
    mask, left = np.zeros(total, dtype=bool), np.ones(total, dtype=bool)
    order, remaining = rng.permutation(total), labels.sum(0)
    while remaining.any():
        label = int(np.where(remaining > 0, remaining, total + 1).argmin())
        for row in order[left[order] & labels[order, label]]:
            lacking = [(float(wanted[part][label]), room[part]) if room[part] else (-np.inf, 0) for part in (0, 1)]
            part = int(lacking[1] > lacking[0])
            mask[row], left[row] = bool(part), False
            room[part] -= 1
            wanted[part] -= labels[row]
            remaining -= labels[row]
    mask[order[left[order]][: room[1]]] = True  # images without labels
    return _exchanged(mask, labels, share, order)


def _exchanged(
    mask: NDArray[np.bool_], labels: NDArray[np.bool_], wanted: NDArray[np.float64], order: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Exchange marked and unmarked rows while the squared errors of the marked images of each label become smaller.

    Args:
        mask: marked rows ``(n,)``.
        labels: ``(n, labels)``.
        wanted: marked images wanted of each label; an error counts by one over this number.
        order: order in which rows are preferred if they are equally good.
    """
    # whole numbers, which every machine adds up alike: workers on several machines must compute the same split
    rows, unit = labels[order].astype(np.int64), 1024
    marked, weights = mask[order], np.rint(unit / np.maximum(wanted, 0.5)).astype(np.int64)
    excess = unit * rows[marked].sum(0) - np.rint(unit * wanted).astype(np.int64)
    for _ in range(_MOST_EXCHANGES):
        if marked.all() or not marked.any():
            break
        gain = rows @ (weights * (2 * excess - unit))  # of taking a marked row out
        out = int(np.where(marked, gain, np.iinfo(np.int64).min).argmax())
        without = excess - unit * rows[out]
        loss = rows @ (weights * (2 * without + unit))  # of putting an unmarked row in
        into = int(np.where(marked, np.iinfo(np.int64).max, loss).argmin())
        if gain[out] <= loss[into]:
            break
        marked[[out, into]] = False, True
        excess = without + unit * rows[into]
    mask = np.zeros_like(mask)
    mask[order[marked]] = True
    return mask


def _shares(sizes: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Return integers near ``count * sizes / sum(sizes)`` that sum to ``count``, each from 1 to its size."""
    quota = count * sizes / sizes.sum()
    take: NDArray[np.intp] = np.clip(np.floor(quota).astype(np.intp), 1, sizes)
    while take.sum() < count:
        take[np.argmax(np.where(take < sizes, quota - take, -np.inf))] += 1
    while take.sum() > count:
        take[np.argmin(np.where(take > 1, quota - take, np.inf))] -= 1
    return take
