"""The source ``module:factory``: images from a function of the user.

The function is called as ``factory(part, **options)`` with ``part`` either ``"train"`` or ``"test"``. It returns
``LabelledImages``, ``(images, labels)`` or ``(images, labels, classes)``, with images ``uint8 (n, channels, height,
width)`` and integer labels ``(n,)``; or labels ``(n, classes)`` of 0 and 1 if an image has any number of them. Images
that are not square are made square as set by ``data.resize``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from autodistill.core.errors import AutodistillError, DataError, UsageError
from autodistill.core.records import DataSpec
from autodistill.training.data.sources.base import LabelledImages, Part


def is_reference(source: str) -> bool:
    """Return whether ``source`` has the form ``package.module:function``."""
    module, colon, name = source.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def resolve(source: str) -> Callable[..., Any]:
    """Import ``package.module:function``; this runs the module's code.

    Raises:
        UsageError: The module or the function does not exist, or is not callable.
    """
    module, _, name = source.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"cannot import {source!r}: {error}. Expected module:function; the module must be installed "
            "or on PYTHONPATH."
        ) from error
    if not callable(found):
        raise UsageError(f"{source!r} is a {type(found).__name__}; expected a function.")
    return found  # type: ignore[no-any-return]


def from_factory(spec: DataSpec, part: Part) -> LabelledImages:
    """Call the user's function and check what it returns.

    Raises:
        UsageError: The function cannot be imported.
        DataError: The function failed, or returned something other than images and labels.
    """
    factory = resolve(spec.source)
    try:
        made = factory(part, **spec.options)
    except AutodistillError:
        raise
    except Exception as error:
        raise DataError(f"data source {spec.source!r} failed: {type(error).__name__}: {error}") from error
    if isinstance(made, LabelledImages):
        return made
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise DataError(f"{spec.source!r} returned {type(made).__name__}; expected (images, labels[, classes]).")
    images, labels = np.asarray(made[0]), np.asarray(made[1])
    count = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1 if labels.dtype.kind in "iu" else 0
    return LabelledImages(images, labels, made[2] if len(made) == 3 else tuple(map(str, range(count))))
