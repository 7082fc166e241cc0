"""Pictures of Hugging Face ``datasets``: Parquet and Arrow files, saved datasets, folders, or a name on the hub.

Files are read where they lie, by pyarrow. The library ``datasets`` finds out which files of a folder or of a dataset on
the hub belong to which split. Only what it writes as Arrow files is read: no code of a dataset runs.
"""

from __future__ import annotations

import contextlib
import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autodistill.core.errors import DataError, ResourceError, UsageError, first_line, nearest
from autodistill.core.records import DataSpec, stable_key
from autodistill.training.data.sources.base import Part, path_at, path_checks
from autodistill.training.data.sources.pictures import Encoded, Pictures, picture_source
from autodistill.training.data.sources.tables.arrow_files import NEEDS, SUFFIXES, ArrowFile
from autodistill.training.data.sources.tables.rows import (
    IMAGE_COLUMNS,
    ImageRow,
    arrange,
    classes_of,
    column,
    empty_classes,
    label_columns,
    label_of,
    refuse,
    separator_of,
    split_of,
    stamp,
    text_of,
)

_WHAT = (
    "a .parquet or .arrow file, or a folder with such files, with images, or saved by Dataset.save_to_disk; a name on "
    "the hub is given by --set data.options.name=OWNER/NAME instead"
)
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Options that name the splits of a dataset, and the split that each stands for."""

_PATIENCE = 5.0  # seconds in which the hub must answer

Files = Mapping[str, Sequence[Path]]
"""Name of a split in the dataset to its files."""


@path_checks.register("hf")
def check_root(spec: DataSpec) -> None:
    """Check that the files exist, or that a name is given instead."""
    if _name(spec) is None:
        path_at(spec, _WHAT)
    elif spec.root is not None:
        raise UsageError("data source 'hf' has both data.root and data.options.name; give one of them.")


@picture_source(
    "hf",
    options=("name", "config", "revision", "image", "label", "separator", "classes", *_SPLITS),
)
def hugging_face(spec: DataSpec, part: Part, cache_dir: Path) -> Pictures:
    """Read Hugging Face datasets: Parquet, Arrow, image folders, by path or name.

    Options: ``name`` (``owner/name`` on the hub, instead of a root), ``config`` and ``revision`` of the dataset,
    ``image`` and ``label`` (names of the columns; a list of label columns that are 0 or 1 each gives several labels per
    image), ``train``, ``validation`` and ``test`` (names of the splits), ``separator``, ``classes``, ``channels``,
    ``max_pixels``.

    Raises:
        DataError: The files cannot be read, or some rows cannot be used; the message names them by their number.
        ResourceError: A library is missing.
    """
    del cache_dir
    check_root(spec)
    where = _name(spec) or Path(str(spec.root)).name
    every = _files(spec)
    files = _by_split(spec, every, where)
    opened = [(split, ArrowFile(path)) for split, paths in files.items() for path in paths]
    first = opened[0][1]
    image = column(first.columns, spec.options.get("image"), IMAGE_COLUMNS, option="image", where=where)
    first.check_pictures(image)
    labels = label_columns(first.columns, spec.options.get("label"), where)
    given = classes_of(spec, Path(str(spec.root)).parent if spec.root else Path())
    named = first.class_names(labels[0]) if len(labels) == 1 else None
    rows: list[ImageRow] = []
    starts: list[int] = []
    problems: list[str] = []
    for split, file in opened:
        starts.append(len(rows))
        if missing := [name for name in (image, *labels) if name not in file.columns]:
            raise DataError(f"{file.path.name} has no column {missing[0]!r}, unlike {first.path.name}.")
        _read(file, split, rows, problems, image=image, labels=labels, names=named, separator=separator_of(spec))
    refuse(problems, len(rows), where)
    classes = given or named
    chosen = arrange(rows, part, where=where, classes=classes)
    stamps: list[Any] = [[file.path.name, file.path.stat().st_size, file.path.stat().st_mtime_ns] for _, file in opened]
    if first.has_paths(image):  # other files, which can change while this one stays
        stamps += [stamp(opened[0][1].path.parent / rows[row].path) for row in chosen.rows]
    facts = [stamps, image, chosen.rows.tolist(), chosen.labels.tolist()]
    return Pictures(
        [rows[row].name for row in chosen.rows],
        chosen.labels,
        chosen.classes,
        stable_key(["hf", facts, chosen.classes]),
        lambda: _pictures([file for _, file in opened], starts, image, chosen.rows.tolist()),
        chosen.validation,
        remarks=lambda: (*empty_classes(rows, classes, where), *_unused(every, files, where)),
    )


def _read(
    file: ArrowFile,
    split: str,
    rows: list[ImageRow],
    problems: list[str],
    *,
    image: str,
    labels: Sequence[str],
    names: Sequence[str] | None,
    separator: str | None,
) -> None:
    """Append the rows of one file; a row whose label cannot be used is added to ``problems``."""
    for number, values in enumerate(file.rows(labels, image), 1):
        path = text_of(values[""])
        name = f"row {number} of {file.path.name}{f' ({path})' if path else ''}"
        try:
            if names is not None:
                values = {labels[0]: _named(values[labels[0]], names)}
            label = label_of(values, labels, separator)
        except ValueError as error:
            problems.append(f"{name}: {error}")
            label = ""
        rows.append(ImageRow(name, label, path, split))


def _named(value: Any, names: Sequence[str]) -> Any:
    """Return the names of one or several class numbers.

    Raises:
        ValueError: A number stands for no class; -1 means that the label is not published.
    """
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    if isinstance(value, str) or value is None:
        return value
    if not 0 <= value < len(names):
        raise ValueError(f"label {value}; allowed: 0 to {len(names) - 1}")
    return names[value]


def _pictures(
    files: Sequence[ArrowFile], starts: Sequence[int], image: str, rows: Sequence[int]
) -> Iterator[tuple[int, Encoded]]:
    """Yield position and content of the chosen rows, in the order of the files."""
    positions = {row: position for position, row in enumerate(rows)}
    ordered = sorted(rows)
    ends = [*starts[1:], ordered[-1] + 1]
    for file, start, end in zip(files, starts, ends, strict=True):
        if bisect_left(ordered, start) == bisect_left(ordered, end):
            continue  # no row is chosen, e.g. in the files of the test part
        for row, encoded in enumerate(file.pictures(image), start):
            if row in positions:
                yield positions[row], encoded


def _by_split(spec: DataSpec, files: Files, where: str) -> dict[str, Sequence[Path]]:
    """Return the files of ``train``, ``val`` and ``test``, by the options or by the names of the splits.

    A dataset with one split is divided here, so its files have an empty name.

    Raises:
        UsageError: An option names no split of the dataset.
        DataError: No split is for training.
    """
    options = {split: spec.options[option] for option, split in _SPLITS.items() if option in spec.options}
    out: dict[str, Sequence[Path]] = {}
    for split, name in options.items():
        if name not in files:
            close = nearest(name, files, 1)
            meant = f"; did you mean {close[0]!r}?" if close else "."
            raise UsageError(f"{where} has no split {name!r}{meant} Its splits: {', '.join(files)}.")
        out[split] = files[name]
    left = {name: paths for name, paths in files.items() if name not in options.values()}
    for name, paths in left.items():
        if (split := split_of(name)) and split not in out:
            out[split] = paths
    if "train" in out:
        return {"": out["train"]} if len(out) == 1 else out
    if len(files) == 1 and not options:
        return {"": next(iter(files.values()))}
    raise DataError(
        f"{where} has no split for training; its splits: {', '.join(files)}. Name it by --set data.options.train=NAME."
    )


def _unused(every: Files, used: Files, where: str) -> tuple[str, ...]:
    """Return a remark about the splits that are not used; empty if there are none."""
    taken = list(used.values())
    names = [name for name, paths in every.items() if paths not in taken]
    return (f"{where}: splits that are not used: {', '.join(names)}.",) if names else ()


def _files(spec: DataSpec) -> Files:
    """Return the Parquet or Arrow files of each split.

    Raises:
        DataError: There are none.
    """
    name = _name(spec)
    if name is not None:
        return _prepared(name, spec)
    root = path_at(spec, _WHAT)
    if root.is_file():
        if root.suffix.lower() not in SUFFIXES:
            raise DataError(f"{root} is no {' or '.join(SUFFIXES)} file; expected {_WHAT}.")
        return {"all": [root]}
    return _saved(root) or _prepared(str(root), spec)


def _saved(root: Path) -> Files:
    """Return the files of a folder made by ``save_to_disk``; empty if it is none."""
    if (root / "dataset_dict.json").is_file():
        try:
            names = json.loads((root / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{root / 'dataset_dict.json'} is damaged: it names no splits.") from error
        return {str(name): _saved(root / str(name)).get("all", []) for name in names}
    if not (root / "state.json").is_file():
        return {}
    try:
        state = json.loads((root / "state.json").read_text(encoding="utf-8"))
        files = [root / Path(str(one["filename"])).name for one in state["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{root / 'state.json'} is damaged: it names no files.") from error
    if missing := [path.name for path in files if not path.is_file()]:
        raise DataError(f"{root} lacks the file {missing[0]}; copy the folder again.")
    return {"all": files}


def _prepared(name: str, spec: DataSpec) -> Files:
    """Return the files of a folder or of a dataset on the hub, as ``datasets`` finds or writes them.

    Raises:
        DataError: The library cannot read the dataset.
        ResourceError: The library is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise ResourceError(f"reading {name} needs Hugging Face's datasets: {NEEDS}.") from error
    chosen = {key: spec.options[option] for option, key in _KEYWORDS.items() if option in spec.options}
    silent = datasets.utils.are_progress_bars_disabled()
    datasets.utils.disable_progress_bars()  # its bars and the panel of a search would overwrite each other
    reached = _name(spec) is None or _answers(name)
    try:
        with contextlib.nullcontext() if reached else _offline():
            builder = datasets.load_dataset_builder(name, **chosen)
            given = builder.config.data_files or {}
            texts = [str(path) for paths in given.values() for path in paths]
            if texts and all(Path(text).suffix.lower() in SUFFIXES and "://" not in text for text in texts):
                found = {str(split): [Path(str(path)) for path in paths] for split, paths in given.items()}
            else:
                builder.download_and_prepare()
                parts = builder.as_dataset().items()
                found = {str(split): [Path(one["filename"]) for one in part.cache_files] for split, part in parts}
    except Exception as error:  # the library raises errors of many libraries
        why = (
            "Check the name, config and revision."
            if reached
            else "The hub does not answer, and the dataset is not in Hugging Face's cache on this machine."
        )
        raise DataError(
            f"Hugging Face's datasets cannot read {name}: {type(error).__name__}: {first_line(error)}. {why}"
        ) from error
    finally:
        if not silent:
            datasets.utils.enable_progress_bars()
    if not any(found.values()):
        raise DataError(f"{name} has no data. Expected {_WHAT}.")
    return {split: paths for split, paths in found.items() if paths}


def _answers(name: str) -> bool:
    """Return whether the hub answers within seconds: the library itself asks again and again for half a minute."""
    import datasets
    import huggingface_hub

    if datasets.config.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.HfApi(endpoint=datasets.config.HF_ENDPOINT).dataset_info(name, timeout=_PATIENCE)
    except (huggingface_hub.errors.HfHubHTTPError, huggingface_hub.errors.HFValidationError):
        return True  # it answers that it has no such dataset; the library says so in words
    except Exception:  # the errors of its connection depend on the version
        return False
    return True


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Make the library look into its cache alone."""
    import datasets
    import huggingface_hub

    places = (datasets.config, huggingface_hub.constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


_KEYWORDS = {"config": "name", "revision": "revision"}


def _name(spec: DataSpec) -> str | None:
    given = spec.options.get("name")
    if given is not None and (not isinstance(given, str) or not given):
        raise UsageError(
            f"data option name is {given!r}; allowed: the name of a dataset on the hub, e.g. ylecun/mnist."
        )
    return given
