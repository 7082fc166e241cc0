"""What every data source returns, and the registry they are filed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError, UnknownNameError, UsageError, nearest
from autodistill.core.records import DataSpec
from autodistill.core.registry import Registry
from autodistill.training.data.sources.square import Shapes

Part = Literal["train", "test"]
T = TypeVar("T")
_MOST_NEIGHBOURS = 1000  # looked at for a name that was meant; more would take seconds


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Labelled images as a source gives them, before validation images are split off.

    Attributes:
        images: ``uint8 (n, channels, height, width)``, possibly memory-mapped; what is not square is made so.
        labels: ``int64 (n,)``, indices into ``classes``.
        classes: names, in the order of the labels.
        validation: mask ``(n,)`` of the source's own validation images; ``None`` where it has no such split.
        fingerprint: hash of the content where the source knows it already; empty to have it computed.
        before: height and width of the source's images where these were not square.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    validation: NDArray[np.bool_] | None = None
    fingerprint: str = ""
    before: tuple[int, int] | None = None


DataSource = Callable[[DataSpec, Part, Path], LabelledImages]
"""``source(spec, part, cache_dir)``: must not open files of the test split when ``part`` is ``train``."""

data_sources: Registry[DataSource] = Registry("data source", "autodistill.data_sources")

FileCheck = Callable[[DataSpec, Path, bool], None]
"""``check(spec, cache_dir, begun)``: whether every file of every part can be read; hands nothing of the test part on.

A study that has ``begun`` cannot do without a file: the message should not propose it.
"""

file_checks: Registry[FileCheck] = Registry("check of files", "autodistill.file_checks")
"""By the name of the source; a source without one is believed."""

ShapeReader = Callable[[DataSpec], Shapes]
"""``read(spec)``: sizes of the images of training and validation as their files have them; decodes none."""

shape_readers: Registry[ShapeReader] = Registry("reader of shapes", "autodistill.shape_readers")
"""By the name of the source; those whose arrays have one shape need none."""

ClassReader = Callable[[DataSpec], tuple[str, ...]]
"""``read(spec)``: names of the classes, in the order of the labels; decodes no image."""

class_readers: Registry[ClassReader] = Registry("reader of classes", "autodistill.class_readers")
"""By the name of the source; of one without, the classes are known when its images are read."""


def option(spec: DataSpec, name: str, default: T, *, low: float | None = None, high: float | None = None) -> T:
    """An option of the source, converted to the type of its default and checked against its range.

    Raises:
        UsageError: it has another type, or lies outside ``low … high``.
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
    """Refuse options that the source does not know.

    Raises:
        UnknownNameError: an option is unknown; the nearest come first.
    """
    known = tuple(allowed)
    for name in spec.options:
        if name not in known:
            raise UnknownNameError(f"option of data source {spec.source!r}", name, known)


def need_root(spec: DataSpec, what: str) -> Path:
    """The folder of the files.

    Raises:
        UsageError: no folder was given.
        DataError: it does not exist.
    """
    if spec.root is None:
        raise UsageError(
            f"data source {spec.source!r} needs a folder: {what}. Say where it is: --data-root DIR, or data.root."
        )
    return folder_at(spec.root, what)


def folder_at(root: str, what: str) -> Path:
    """The folder ``root``, in which ``what`` is expected.

    Raises:
        DataError: it does not exist; the message names the folder beside it that is called most like it.
    """
    folder = Path(root).expanduser()
    if folder.is_dir():
        return folder
    close = nearest(folder.name, _folders_in(folder.parent), 1)
    meant = f"did you mean {str(folder.parent / close[0])!r}? Expected" if close else "expected"
    raise DataError(f"data root {str(folder)!r} is not a folder; {meant} {what}.")


def _folders_in(parent: Path) -> list[str]:
    try:
        return [path.name for path in islice(parent.iterdir(), _MOST_NEIGHBOURS) if path.is_dir()]
    except OSError:
        return []
