"""Comparison of training, validation and test part by their classes and the shape of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError


@dataclass(frozen=True)
class PartFacts:
    """What two parts must have in common.

    Attributes:
        classes: class names, in the order of the labels.
        shape: channels, height and width of the images.
        label_axes: 1 if an image has one class, 2 if it has any number of labels.
    """

    classes: tuple[str, ...]
    shape: tuple[int, ...]
    label_axes: int


def compare(source: str, train: PartFacts, test: PartFacts) -> None:
    """Refuse a test part whose classes, images or labels are unlike those of training.

    Args:
        source: name of the data source, for messages.
        train: facts about the training part.
        test: facts about the test part.

    Raises:
        DataError: Class names, their order, channels, size or kind of labels differ.
    """
    named = f"data source {source!r}"
    if test.classes != train.classes:
        raise DataError(f"{named} {_other_classes(train.classes, test.classes)}")
    if test.shape != train.shape:
        hint = " Set data.image_size to scale both to one size." if test.shape[0] == train.shape[0] else ""
        raise DataError(
            f"{named} gives images {_size(test.shape)} for the test part and {_size(train.shape)} for training.{hint}"
        )
    if test.label_axes != train.label_axes:
        kinds = {1: "one class per image", 2: "several labels per image"}
        raise DataError(
            f"{named} gives {kinds[test.label_axes]} for the test part and {kinds[train.label_axes]} for training."
        )


def missing_classes(parts: Mapping[str, NDArray[np.int64]], classes: Sequence[str]) -> str:
    """Describe the classes that have no images in a part; empty if there are none.

    Args:
        parts: name of each part to its labels.
        classes: class names.
    """
    out = []
    for name, labels in parts.items():
        if lacking := [classes[int(label)] for label in np.flatnonzero(class_counts(labels, len(classes)) == 0)]:
            out.append(f"the {name} part has no images of {_listed(lacking)}")
    return f"classes without images: {'; '.join(out)}." if out else ""


def class_counts(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return the number of images of each class, ``(classes,)``, given labels ``(n,)`` or ``(n, classes)``."""
    counts: NDArray[np.int64] = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)
    return counts


def _other_classes(train: tuple[str, ...], test: tuple[str, ...]) -> str:
    if set(train) == set(test):
        first = next(index for index, name in enumerate(train) if test[index] != name)
        return (
            f"gives the classes of the test part in another order: class {first} is {train[first]!r} in training and "
            f"{test[first]!r} in the test part. Give both parts the same order."
        )
    lacking = _listed([name for name in train if name not in test])
    more = _listed([name for name in test if name not in train])
    return (
        f"gives other classes for the test part ({len(test)}) than for training ({len(train)}): only in training: "
        f"{lacking}; only in the test part: {more}. Give both parts all class names, in the same order; a class may "
        "lack images in the test part."
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(map(repr, names[:5])) or "none") + more


def _size(shape: tuple[int, ...]) -> str:
    return f"of {shape[2]} x {shape[1]} pixels with {shape[0]} channel{'' if shape[0] == 1 else 's'}"
