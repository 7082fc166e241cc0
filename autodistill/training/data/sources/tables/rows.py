"""Rows of a table of pictures, arranged into parts exactly as class folders are.

A part has its pictures in the order of their classes, then of their paths. So the same pictures with the same labels
give the same arrays and fingerprints, whether they lie in class folders, in a table or in an archive, and the order of
the rows does not matter.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError, UsageError, nearest
from autodistill.core.records import DataSpec
from autodistill.training.data.sources.base import Part
from autodistill.training.data.sources.splits import SPLITS, TEST_FRACTION, TEST_SEED, check_counts, hold_out

Label = str | tuple[str, ...]
"""Class of a picture, or its labels if pictures have any number of them."""

PATH_COLUMNS = ("path", "file", "file_name", "filename", "filepath", "file_path", "image", "image_path", "img")
IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "jpeg", "png", "bytes", "pixel_values")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "classname", "target", "category", "fine_label")
SPLIT_COLUMNS = ("split", "subset", "partition", "part", "fold")

_SPLIT_NAMES = {**SPLITS, "val": (*SPLITS["val"], "dev", "eval")}
_LISTED = 10


@dataclass(frozen=True)
class ImageRow:
    """One row of a table.

    Attributes:
        name: the row in messages: ``line 7 of labels.csv (photos/7.jpg)``.
        label: class or labels.
        path: path of the picture within its source, by which rows of a class are ordered; may be empty.
        split: ``train``, ``val``, ``test``, or empty if the table does not say.
    """

    name: str
    label: Label
    path: str = ""
    split: str = ""


@dataclass(frozen=True, eq=False)
class Arranged:
    """Rows of one part.

    Attributes:
        rows: ``(n,)``, numbers of the rows in the table.
        labels: ``int64 (n,)``, or ``(n, classes)`` of 0 and 1.
        classes: class names, in the order of the labels.
        validation: mask ``(n,)``; ``None`` if the table has no validation rows.
    """

    rows: NDArray[np.intp]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    validation: NDArray[np.bool_] | None


def split_of(text: str) -> str:
    """Return the split that a name means, ``train``, ``val`` or ``test``, ignoring case; empty if none."""
    return next((split for split, names in _SPLIT_NAMES.items() if text.strip().lower() in names), "")


def split_in_path(path: str) -> str:
    """Return the split that a folder or a word of a path means (``data/train-00000-of-00002.parquet``); empty if none.

    The last such word decides.
    """
    text = "".join(letter if letter.isalnum() else " " for letter in path)
    return next((split for word in reversed(text.split()) if (split := split_of(word))), "")


def arrange(rows: Sequence[ImageRow], part: Part, *, where: str, classes: Sequence[str] | None = None) -> Arranged:
    """Choose the rows of one part, in the order of classes and paths.

    Without test rows, a fifth of the training rows is held out, as from class folders.

    Args:
        rows: all rows of the table.
        part: the part.
        where: name of the table, for messages.
        classes: class names, in order; by default those of the training rows, sorted, whole numbers by their value.

    Raises:
        DataError: There are no training rows, fewer than two classes, or labels that training does not have.
    """
    splits = _splits(rows, where)
    train = np.flatnonzero(splits == "train")
    if not len(train):
        found = ", ".join(f"{count:,} {split}" for split, count in Counter(splits.tolist()).items()) or "no rows"
        raise DataError(f"{where} has no rows for training ({found}).")
    several = isinstance(rows[int(train[0])].label, tuple)
    names = tuple(classes) if classes is not None else _class_names([rows[i].label for i in train.tolist()])
    if len(names) < 2:
        raise DataError(f"{where} has one class ({', '.join(names) or 'none'}); classification needs at least 2.")
    index = {name: label for label, name in enumerate(names)}
    _check_labels(rows, index, where, given=classes is not None)

    def ordered(chosen: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        labels = _labels(rows, chosen, index, several)
        rank = [0] * len(chosen) if several else labels.tolist()
        paths = [PurePosixPath(rows[i].path).parts for i in chosen]
        order = np.asarray(sorted(range(len(chosen)), key=lambda i: (rank[i], paths[i], chosen[i])), dtype=np.intp)
        return chosen[order], labels[order]

    chosen, labels = ordered(train)
    has = {split: bool((splits == split).any()) for split in ("val", "test")}
    given = [name for name, split in (("validation", "val"), ("test", "test")) if has[split]]
    check_counts(labels, names, where=f"in {where}", given=given)
    if part == "test" and has["test"]:
        return Arranged(*ordered(np.flatnonzero(splits == "test")), names, None)
    if not has["test"]:
        test = hold_out(labels, TEST_FRACTION, seed=TEST_SEED, stream="test", classes=names)
        keep = test if part == "test" else ~test
        chosen, labels = chosen[keep], labels[keep]
    if part == "test" or not has["val"]:
        return Arranged(chosen, labels, names, None)
    val_rows, val_labels = ordered(np.flatnonzero(splits == "val"))
    validation = np.arange(len(chosen) + len(val_rows)) >= len(chosen)
    return Arranged(np.concatenate([chosen, val_rows]), np.concatenate([labels, val_labels]), names, validation)


def empty_classes(rows: Sequence[ImageRow], classes: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Return a remark about given classes that no training row has; empty if there are none."""
    if classes is None:
        return ()
    seen = {name for row in rows if row.split in ("", "train") for name in _names(row.label)}
    missing = [name for name in classes if name not in seen]
    if not missing:
        return ()
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return (f"{where}: classes without training images: {', '.join(missing[:5])}{more}.",)


def column(columns: Sequence[str], wanted: Any, known: Sequence[str], *, option: str, where: str) -> str:
    """Return the name of a column: the wanted one, else the first of the known ones, ignoring case.

    Args:
        columns: columns of the table.
        wanted: value of the option; ``None`` if it is not given.
        known: names that are looked for without the option, best first.
        option: name of the option.
        where: name of the table, for messages.

    Raises:
        UsageError: The option is no text.
        DataError: There is no such column.
    """
    if wanted is not None and not isinstance(wanted, str):
        raise UsageError(f"data option {option} is {wanted!r}; allowed: the name of a column.")
    if wanted in columns:
        return str(wanted)
    found = {name.strip().lower(): name for name in reversed(columns)}
    if wanted is None:
        for name in known:
            if name in found:
                return found[name]
    close = nearest(wanted, columns, 1) if wanted is not None else ()
    meant = f"; did you mean {close[0]!r}?" if close else "."
    named = f"no column {wanted!r}" if wanted is not None else f"none of the columns {', '.join(known)}"
    raise DataError(
        f"{where} has {named}{meant} Its columns: {', '.join(map(repr, columns)) or 'none'}. Name the right one by "
        f"--set data.options.{option}=COLUMN."
    )


def optional_column(columns: Sequence[str], wanted: Any, known: Sequence[str], *, option: str, where: str) -> str:
    """Return the name of a column as :func:`column` does, or an empty text if none is wanted and none is known."""
    if wanted is None and not {name.strip().lower() for name in columns} & set(known):
        return ""
    return column(columns, wanted, known, option=option, where=where)


def label_columns(columns: Sequence[str], wanted: Any, where: str) -> tuple[str, ...]:
    """Return the columns of the option ``label``: one with the class, or several that are each 0 or 1.

    Raises:
        DataError: There is no such column.
    """
    if isinstance(wanted, (list, tuple)):
        return tuple(column(columns, name, (), option="label", where=where) for name in wanted)
    return (column(columns, wanted, LABEL_COLUMNS, option="label", where=where),)


def label_of(values: Mapping[str, Any], columns: Sequence[str], separator: str | None) -> Label:
    """Return the label of one row.

    Args:
        values: values of the row.
        columns: the label's columns; several of them are 0 or 1 each, and name a label.
        separator: text between several labels in one column; ``None``: the column has one class, or a list.

    Raises:
        ValueError: The row has no label, or a value other than 0 and 1 in one of several columns.
    """
    if len(columns) > 1:
        return tuple(name for name in columns if _flag(values.get(name), name))
    value = values.get(columns[0])
    if isinstance(value, (list, tuple)):
        return tuple(text_of(one) for one in value)
    if separator is not None:
        return tuple(part.strip() for part in text_of(value).split(separator) if part.strip())
    text = text_of(value)
    if not text:
        raise ValueError("no label")
    return text


def text_of(value: Any) -> str:
    """Return a value of a table as text without blanks at its ends; whole numbers without a fraction."""
    if value is None or value != value:  # not a number: an empty cell of pandas
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def separator_of(spec: DataSpec) -> str | None:
    """Return the option ``separator``, the text between several labels in one column.

    Raises:
        UsageError: It is no text, or empty.
    """
    given = spec.options.get("separator")
    if given is not None and (not isinstance(given, str) or not given):
        raise UsageError(f"data option separator is {given!r}; allowed: a text such as '|' between several labels.")
    return given


def classes_of(spec: DataSpec, folder: Path) -> tuple[str, ...] | None:
    """Return the option ``classes``: a list of names, or a text file with one name a line; ``None`` if not given.

    Args:
        spec: specification with the option.
        folder: folder from which the file's path starts.

    Raises:
        UsageError: It is neither, or names a class twice.
        DataError: The file cannot be read.
    """
    given = spec.options.get("classes")
    if given is None:
        return None
    if isinstance(given, str):
        path = folder / Path(given).expanduser()
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the class names in {path}: {error}.") from error
        if lines is None:
            raise DataError(
                f"data option classes names the file {path}, which does not exist; expected one name a line."
            )
        given = [line.strip() for line in lines if line.strip()]
    if not isinstance(given, (list, tuple)) or not given:
        raise UsageError(f"data option classes is {given!r}; allowed: a list of names, or a text file with one a line.")
    names = tuple(text_of(name) for name in given)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"data option classes has {twice[0]!r} twice; class names must differ.")
    return names


def stamp(path: Path) -> tuple[int, int]:
    """Return size and time of a file; a missing one, or one that is no file, is reported when it is decoded."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (-1, -1)


def refuse(problems: Sequence[str], total: int, where: str) -> None:
    """Raise if rows have problems; the message lists the first ten.

    Raises:
        DataError: There are problems.
    """
    if problems:
        more = [f"… and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        lines = [f"{len(problems):,} of {total:,} rows of {where} cannot be used:", *problems[:_LISTED], *more]
        raise DataError("\n  ".join(lines))


def _splits(rows: Sequence[ImageRow], where: str) -> NDArray[np.str_]:
    """Return the split of every row; ``train`` for all if no row names one."""
    splits = np.asarray([row.split for row in rows], dtype="U5")
    if not (splits != "").any():
        return np.full(len(rows), "train", dtype="U5")
    refuse([f"{row.name}: no split" for row in rows if not row.split], len(rows), where)
    return splits


def _class_names(labels: Sequence[Label]) -> tuple[str, ...]:
    found = {name for label in labels for name in _names(label)}
    if all(_is_whole(name) for name in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and str(int(text)) == text


def _names(label: Label) -> tuple[str, ...]:
    return label if isinstance(label, tuple) else (label,)


def _labels(
    rows: Sequence[ImageRow], chosen: NDArray[np.intp], index: Mapping[str, int], several: bool
) -> NDArray[np.int64]:
    if not several:
        return np.asarray([index[str(rows[i].label)] for i in chosen], dtype=np.int64)
    out = np.zeros((len(chosen), len(index)), dtype=np.int64)
    for row, i in enumerate(chosen):
        out[row, [index[name] for name in rows[i].label]] = 1
    return out


def _check_labels(rows: Sequence[ImageRow], index: Mapping[str, int], where: str, *, given: bool) -> None:
    """Refuse labels that are no classes, and rows of which some have one class and some any number of labels."""
    why = "is not among the classes given by data.options.classes" if given else "has no training images"
    problems = [f"{row.name}: class {name!r} {why}" for row in rows for name in _names(row.label) if name not in index]
    kinds = Counter(isinstance(row.label, tuple) for row in rows)
    if len(kinds) > 1:
        rarer = min(kinds, key=lambda kind: kinds[kind])
        wanted = "one class, others a list of labels" if not rarer else "a list of labels, others one class"
        problems += [f"{row.name}: it has {wanted}" for row in rows if isinstance(row.label, tuple) == rarer]
    refuse(problems, len(rows), where)


def _flag(value: Any, name: str) -> bool:
    text = text_of(value).lower()
    if text not in ("0", "1", "true", "false"):
        raise ValueError(f"column {name!r} is {text!r}; with several label columns each is 0 or 1")
    return text in ("1", "true")
