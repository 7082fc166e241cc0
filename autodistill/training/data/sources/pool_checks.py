"""Checks of what a data source returned, field by field; the messages say what was got and what is allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from autodistill.core.errors import DataError
from autodistill.core.records import described
from autodistill.training.data.sources.base import LabelledImages


def checked(pool: LabelledImages, source: str) -> LabelledImages:
    """Return the labelled images of a source with plain types, after checking every field.

    Args:
        pool: what the source returned.
        source: name of the source, for messages.

    Raises:
        DataError: A field has another type, shape or range than it must have.
    """
    _check_images(pool.images, source)
    labels = _labels(pool.labels, len(pool.images), source)
    classes = class_tuple(pool.classes, source)
    _check_ranges(labels, classes, source)
    _check_validation(pool.validation, len(labels), source)
    if not isinstance(pool.fingerprint, str):
        raise DataError(f"data source {source!r} gave the fingerprint {described(pool.fingerprint)}; expected a text.")
    return replace(pool, labels=labels, classes=classes)


def class_tuple(classes: Any, source: str) -> tuple[str, ...]:
    """Return class names, given as a list or as ``{index: name}``, in the order of the labels.

    Raises:
        DataError: They have another form (a set has no order, a text is no list), or are not different.
    """
    if isinstance(classes, Mapping):
        if sorted(map(str, classes)) != sorted(map(str, range(len(classes)))) or any(
            isinstance(key, bool) for key in classes
        ):
            turned = all(isinstance(index, int) for index in classes.values())
            hint = " It is {name: index}; turn it round." if turned and classes else ""
            raise DataError(
                f"data source {source!r} gave class names with the keys {_some(list(classes))}; expected a list, or "
                f"{{index: name}} with the indices 0 to {max(len(classes) - 1, 0)}.{hint}"
            )
        classes = [name for _, name in sorted(classes.items(), key=lambda item: int(item[0]))]
    if isinstance(classes, np.ndarray) and classes.ndim == 1:
        classes = classes.tolist()
    if not isinstance(classes, (list, tuple)):
        raise DataError(
            f"data source {source!r} gave class names as {type(classes).__name__}; expected a list of names in the "
            "order of the labels, or {index: name}."
        )
    wrong = [name for name in classes if isinstance(name, bool) or not isinstance(name, (str, int, np.integer))]
    if wrong or any(name == "" for name in classes):
        what = described(wrong[0]) if wrong else "an empty text"
        raise DataError(f"data source {source!r} gave {what} as a class name; expected texts.")
    names = tuple(str(name) for name in classes)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"data source {source!r} gave the class name {twice[0]!r} twice; class names must differ.")
    return names


def _check_images(images: Any, source: str) -> None:
    if not isinstance(images, np.ndarray):
        raise DataError(f"data source {source!r} gave images as {type(images).__name__}; expected a numpy array.")
    if images.dtype != np.uint8:
        raise DataError(f"data source {source!r} gave images of type {images.dtype}; expected uint8, 0 to 255.")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        last = images.ndim == 4 and images.shape[3] in (1, 3)
        raise DataError(
            f"data source {source!r} gave images of shape {images.shape}; expected (n, channels, height, width) "
            f"with 1 or 3 channels.{' The channels are last: use images.transpose(0, 3, 1, 2).' if last else ''}"
        )


def _labels(labels: Any, count: int, source: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the labels as ``int64``."""
    if not isinstance(labels, np.ndarray):
        raise DataError(f"data source {source!r} gave labels as {type(labels).__name__}; expected a numpy array.")
    if labels.ndim not in (1, 2) or labels.dtype.kind not in ("iub" if labels.ndim == 2 else "iu"):
        raise DataError(
            f"data source {source!r} gave labels {labels.dtype} {labels.shape}; expected integers (n,), or 0 and 1 "
            "(n, classes) for several labels per image."
        )
    if count == 0 or count != len(labels):
        raise DataError(f"data source {source!r} gave {count} images and {len(labels)} labels.")
    return labels.astype(np.int64)


def _check_ranges(labels: np.ndarray[Any, np.dtype[np.int64]], classes: tuple[str, ...], source: str) -> None:
    """Check that every label is a class."""
    if len(classes) < 2:
        raise DataError(f"data source {source!r} has one class; classification needs at least 2.")
    if labels.ndim == 1:
        if labels.min() < 0 or labels.max() >= len(classes):
            raise DataError(
                f"data source {source!r} has labels from {labels.min()} to {labels.max()}; "
                f"allowed: 0 to {len(classes) - 1}."
            )
        return
    if labels.shape[1] != len(classes):
        raise DataError(
            f"data source {source!r} gave labels of shape {labels.shape} and {len(classes)} classes; expected one "
            "column per class."
        )
    if not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"data source {source!r} gave labels from {labels.min()} to {labels.max()}; with several labels per image "
            "each is 0 (absent) or 1 (present)."
        )


def _check_validation(validation: Any, count: int, source: str) -> None:
    if validation is None:
        return
    fits = isinstance(validation, np.ndarray) and validation.dtype == bool and validation.shape == (count,)
    if not fits:
        shape = getattr(validation, "shape", "")
        what = f"{getattr(validation, 'dtype', type(validation).__name__)} {shape}".rstrip()
        raise DataError(
            f"data source {source!r} gave a validation mask {what}; expected bool ({count},), true for the images of "
            "the validation split."
        )
    if validation.all():
        raise DataError(f"data source {source!r} marks all {count} images as validation; none is left for training.")


def _some(values: list[Any]) -> str:
    more = f" and {len(values) - 3} more" if len(values) > 3 else ""
    return ", ".join(map(repr, values[:3])) + more
