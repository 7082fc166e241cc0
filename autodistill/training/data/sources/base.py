"""The interface of data sources: what they return, their registries, and helpers for their options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError, UnknownNameError, UsageError, nearest
from autodistill.core.records import DataSpec, TaskKind
from autodistill.core.registry import Registry
from autodistill.training.data.sources.square import Shapes

Part = Literal["train", "test"]
T = TypeVar("T")
_MOST_NEIGHBOURS = 1000  # entries searched for a folder with a similar name; more would take seconds


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Labelled images of a source, before validation images are split off.

    Attributes:
        images: ``uint8 (n, channels, height, width)``, possibly memory-mapped. Images that are not square are made
            square later.
        labels: ``int64 (n,)``, indices into ``classes``; or ``int64 (n, classes)`` of 0 and 1 where an image has any
            number of labels.
        classes: class names, in the order of the labels.
        validation: mask ``(n,)`` of the source's own validation images; ``None`` if it has no validation split.
        fingerprint: hash of the content if the source has computed it; empty to have it computed.
        before: height and width of the source's images if they were not square; otherwise ``None``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    validation: NDArray[np.bool_] | None = None
    fingerprint: str = ""
    before: tuple[int, int] | None = None


DataSource = Callable[[DataSpec, Part, Path], LabelledImages]
"""``source(spec, part, cache_dir)``. It must not open files of the test split when ``part`` is ``train``."""

data_sources: Registry[DataSource] = Registry("data source", "autodistill.data_sources")

FileCheck = Callable[[DataSpec, Path, bool], None]
"""``check(spec, cache_dir, begun)``: raise ``DataError`` if a file of any part cannot be read; return no test images.

If the study has ``begun``, the message must not propose to remove files: that would change the split.
"""

file_checks: Registry[FileCheck] = Registry("check of files", "autodistill.file_checks")
"""File checks by the name of the source. A source without one is not checked."""

ShapeReader = Callable[[DataSpec], Shapes]
"""``read(spec)``: return the original sizes of the training and validation images without decoding them."""

shape_readers: Registry[ShapeReader] = Registry("reader of shapes", "autodistill.shape_readers")
"""Shape readers by the name of the source. A source whose images all have one shape needs none."""

ClassReader = Callable[[DataSpec], tuple[str, ...]]
"""``read(spec)``: return the class names, in the order of the labels, without decoding images."""

class_readers: Registry[ClassReader] = Registry("reader of classes", "autodistill.class_readers")
"""Class readers by the name of the source. Without one, the class names are known once the images are read."""


label_kinds: Registry[TaskKind] = Registry("kind of labels", "autodistill.label_kinds")
"""The task that the labels of a source serve, by its name. One without an entry may serve either; its labels tell."""


PathCheck = Callable[[DataSpec], object]
"""``check(spec)``: raise ``UsageError`` or ``DataError`` if there is nothing at the root; it reads no images."""

path_checks: Registry[PathCheck] = Registry("check of paths", "autodistill.path_checks")
"""Path checks by the name of the source. A source without one has a folder as its root, or none."""


def option(spec: DataSpec, name: str, default: T, *, low: float | None = None, high: float | None = None) -> T:
    """Return an option of the source, converted to the type of its default.

    Args:
        spec: specification with the options.
        name: name of the option.
        default: value if the option is not given; sets the type.
        low: smallest allowed value, inclusive.
        high: largest allowed value, inclusive.

    Raises:
        UsageError: The value has another type, or lies outside ``low … high``.
    """
    value: Any = spec.options.get(name, default)
    allowed = f"{'' if low is None else f'from {low:g} '}{'' if high is None else f'to {high:g}'}".strip()
    wrong = isinstance(value, bool) != isinstance(default, bool)
    kind: Callable[[Any], Any] = type(default)
    try:
        converted: Any = kind(value)
    except (TypeError, ValueError):
        wrong, converted = True, default
    if wrong or (isinstance(default, int) and converted != value):
        raise UsageError(f"data option {name} is {value!r}; allowed: {type(default).__name__} {allowed}".rstrip())
    if (low is not None and converted < low) or (high is not None and converted > high):
        raise UsageError(f"data option {name} is {value!r}; allowed: {allowed}.")
    result: T = converted
    return result


def check_options(spec: DataSpec, allowed: Iterable[str] = ()) -> None:
    """Refuse options that the source does not have.

    Raises:
        UnknownNameError: An option does not exist. The message lists the nearest names first.
    """
    known = tuple(allowed)
    for name in spec.options:
        if name not in known:
            raise UnknownNameError(f"option of data source {spec.source!r}", name, known)


def need_root(spec: DataSpec, what: str) -> Path:
    """Return the folder of the source's files.

    Args:
        spec: specification with the folder.
        what: content expected in the folder, for messages.

    Raises:
        UsageError: No folder was given.
        DataError: The folder does not exist.
    """
    if spec.root is None:
        raise UsageError(
            f"data source {spec.source!r} needs a folder: {what}. Give it by --data-root DIR or data.root."
        )
    return folder_at(spec.root, what)


def path_at(spec: DataSpec, what: str) -> Path:
    """Return the root of a source that may be a file or a folder, after checking that there is one.

    Args:
        spec: specification with the root; ``~`` is expanded.
        what: content expected there, for messages.

    Raises:
        UsageError: No root was given.
        DataError: It does not exist, or is neither a file nor a folder. The message proposes the most similar name.
    """
    if spec.root is None:
        raise UsageError(f"data source {spec.source!r} needs {what}. Give it by --data-root PATH or data.root.")
    path = Path(spec.root).expanduser()
    if path.is_file() or path.is_dir():
        return path
    if path.exists():
        raise DataError(f"data root {str(path)!r} is neither a file nor a folder; expected {what}.")
    close = nearest(path.name, _names_in(path.parent), 1)
    meant = f"did you mean {str(path.parent / close[0])!r}? Expected" if close else "expected"
    raise DataError(f"data root {str(path)!r} does not exist; {meant} {what}.")


def folder_at(root: str, what: str) -> Path:
    """Return ``root`` as a path, after checking that it is a folder.

    Args:
        root: the folder; ``~`` is expanded.
        what: content expected in the folder, for messages.

    Raises:
        DataError: The folder does not exist. The message proposes the sibling folder with the most similar name.
    """
    folder = Path(root).expanduser()
    if folder.is_dir():
        return folder
    close = nearest(folder.name, _names_in(folder.parent, folders=True), 1)
    meant = f"did you mean {str(folder.parent / close[0])!r}? Expected" if close else "expected"
    raise DataError(f"data root {str(folder)!r} is not a folder; {meant} {what}.")


def _names_in(parent: Path, *, folders: bool = False) -> list[str]:
    try:
        return [path.name for path in islice(parent.iterdir(), _MOST_NEIGHBOURS) if path.is_dir() or not folders]
    except OSError:
        return []
