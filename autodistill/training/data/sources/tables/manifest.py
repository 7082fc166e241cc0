"""Pictures listed in a table: CSV, TSV or JSON lines with the columns path, label and, if wanted, split."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autodistill.core.errors import DataError, UsageError
from autodistill.core.records import DataSpec, stable_key
from autodistill.training.data.sources.base import Part, path_at, path_checks
from autodistill.training.data.sources.pictures import Pictures, picture_source
from autodistill.training.data.sources.tables.rows import (
    PATH_COLUMNS,
    SPLIT_COLUMNS,
    ImageRow,
    arrange,
    classes_of,
    column,
    empty_classes,
    label_columns,
    label_of,
    optional_column,
    refuse,
    separator_of,
    split_of,
    stamp,
    text_of,
)

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
_WHAT = "a table of images (.csv, .tsv or .jsonl with the columns path and label), or a folder with one"
_DELIMITERS = ",;\t|"
_LONGEST = 2**20  # characters of one cell


@path_checks.register("manifest")
def check_root(spec: DataSpec) -> None:
    """Check that the table exists."""
    tables(spec)


@picture_source("manifest", options=("path", "label", "split", "images", "classes", "separator", "delimiter"))
def manifest(spec: DataSpec, part: Part, cache_dir: Path) -> Pictures:
    """Read images listed in a table (CSV, TSV, JSON lines): path, label and optionally split.

    Options: ``path``, ``label`` and ``split`` (names of the columns; a list of label columns that are 0 or 1 each
    gives several labels per image), ``separator`` (text between several labels in one column), ``images`` (folder from
    which paths start; by default the table's), ``classes`` (list of class names, or a text file with one a line),
    ``delimiter`` (between columns), ``channels``, ``max_pixels``.

    Raises:
        DataError: The table cannot be read, or some rows cannot be used; the message names them by their line.
    """
    del cache_dir
    files = tables(spec)
    where = ", ".join(path.name for path in files)
    rows: list[ImageRow] = []
    paths: list[Path] = []
    for path in files:
        _read(spec, path, rows, paths, split=split_of(path.stem) if len(files) > 1 else "")
    classes = classes_of(spec, files[0].parent)
    chosen = arrange(rows, part, where=where, classes=classes)
    members = tuple(paths[row] for row in chosen.rows)
    facts = [[rows[row].path, *stamp(paths[row])] for row in chosen.rows]
    return Pictures(
        [rows[row].name for row in chosen.rows],
        chosen.labels,
        chosen.classes,
        stable_key(["manifest", facts, chosen.classes]),
        lambda: enumerate(members),
        chosen.validation,
        members,
        lambda: empty_classes(rows, classes, where),
    )


def tables(spec: DataSpec) -> list[Path]:
    """Return the table of a source, or the tables of its splits (``train.csv``, ``val.csv``, ``test.csv``).

    Raises:
        UsageError: No path was given.
        DataError: It does not exist, or the folder has no table or several.
    """
    root = path_at(spec, _WHAT)
    if not root.is_dir():
        if root.suffix.lower() not in SUFFIXES:
            raise DataError(f"{root} is no table; allowed suffixes: {', '.join(SUFFIXES)}.")
        return [root]
    found = [path for path in sorted(root.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    parts = {split_of(path.stem): path for path in found if split_of(path.stem)}
    if "train" in parts:
        return list(parts.values())
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:5]) or "none"
        raise DataError(f"{root} must have one table of images, or train.csv, val.csv and test.csv; it has {names}.")
    return found


def _read(spec: DataSpec, path: Path, rows: list[ImageRow], paths: list[Path], *, split: str) -> None:
    """Append the rows of one table and the paths of their images.

    Raises:
        DataError: The table cannot be read, or some rows cannot be used.
    """
    where, separator = path.name, separator_of(spec)
    base = path.parent / Path(_text(spec, "images") or ".").expanduser()
    lines = _json_lines(path) if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_lines(spec, path)
    problems: list[str] = []
    total, names = 0, None
    for line, values in lines:
        total += 1
        if names is None:
            columns = list(values)
            names = (
                column(columns, spec.options.get("path"), PATH_COLUMNS, option="path", where=where),
                label_columns(columns, spec.options.get("label"), where),
                optional_column(columns, spec.options.get("split"), SPLIT_COLUMNS, option="split", where=where),
            )
        file, label, part = names
        given = text_of(values.get(file))
        try:
            if not given:
                raise ValueError("no path")
            wanted = split or (_split(values, part) if part else "")
            rows.append(ImageRow(f"line {line} of {where}: {given}", label_of(values, label, separator), given, wanted))
            paths.append(base / given)
        except ValueError as error:
            problems.append(f"line {line}{f' ({given})' if given else ''}: {error}")
    if names is None:
        raise DataError(f"{path} has no rows. Expected {_WHAT}.")
    refuse(problems, total, where)


def _split(values: Mapping[str, Any], name: str) -> str:
    given = text_of(values.get(name))
    found = split_of(given)
    if not found:
        raise ValueError(f"split {given!r}; allowed: train, validation, test")
    return found


def _csv_lines(spec: DataSpec, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of a line and its values by column.

    Raises:
        DataError: The file is no CSV, or a line has another number of columns.
    """
    csv.field_size_limit(_LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            given = _text(spec, "delimiter") or ("\t" if path.suffix.lower() == ".tsv" else _delimiter(head))
            reader = csv.reader(file, delimiter=given, strict=True)
            columns = next(reader, [])
            if len(set(columns)) < len(columns):
                twice = next(name for name in columns if columns.count(name) > 1)
                raise DataError(
                    f"{path.name} has the column {twice!r} twice; the first line must name each column once."
                )
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise DataError(
                        f"line {reader.line_num} of {path.name} has {len(cells)} columns, the first line has "
                        f"{len(columns)}. Put quotes around values that contain {given!r}."
                    )
                yield reader.line_num, dict(zip(columns, cells, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}. Expected {_WHAT}, in UTF-8.") from error


def _delimiter(head: str) -> str:
    """Return the delimiter that the first line has most of: a comma unless there are more of another."""
    return max(_DELIMITERS, key=lambda one: (head.count(one), one == ","))


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of a line and the values of its JSON object.

    Raises:
        DataError: A line is no JSON object.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    values = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"line {number} of {path.name} is no JSON: {error}.") from error
                if not isinstance(values, dict):
                    raise DataError(f'line {number} of {path.name} is no JSON object such as {{"path": …}}.')
                yield number, values
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}. Expected {_WHAT}, in UTF-8.") from error


def _text(spec: DataSpec, name: str) -> str:
    given = spec.options.get(name)
    if given is not None and not isinstance(given, str):
        raise UsageError(f"data option {name} is {given!r}; allowed: a text.")
    if name == "delimiter" and given is not None and len(given) != 1:
        raise UsageError(f"data option delimiter is {given!r}; allowed: one character.")
    return given or ""
