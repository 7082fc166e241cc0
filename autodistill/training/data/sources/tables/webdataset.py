"""Pictures in tar files as WebDataset has them: members ``KEY.jpg`` and ``KEY.cls`` (or ``.json``) make one sample.

The archives are read by Python's ``tarfile``, and nothing is unpacked to disk. The library ``webdataset`` is not used:
it runs the shell for ``pipe:`` addresses and unpickles members by default, and it reads in order only, while here each
picture is read once, from its place in the file, into its place in the cache.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from glob import glob
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import DataError, UsageError, first_line
from autodistill.core.records import DataSpec, stable_key
from autodistill.training.data.sources.array_cache import cached_array, open_array
from autodistill.training.data.sources.base import Part, path_checks
from autodistill.training.data.sources.decoding import SUFFIXES
from autodistill.training.data.sources.pictures import Encoded, Pictures, picture_source
from autodistill.training.data.sources.tables.rows import (
    LABEL_COLUMNS,
    ImageRow,
    Label,
    arrange,
    classes_of,
    empty_classes,
    label_of,
    refuse,
    separator_of,
    split_in_path,
    split_of,
    stamp,
)

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_WHAT = (
    "tar files with the members KEY.jpg and KEY.cls of each sample: a file, a folder, or a pattern such as "
    "train-{0000..0009}.tar"
)
_FOLDER = "folder"
_LABELS = ("cls", "json", "txt")
_LARGEST_LABEL = 2**20  # bytes of a member with a label
_LARGEST_PICTURE = 2**30
_CLASS_FILES = ("classes.txt", "classnames.txt")
_VERSION = 1  # of the stored list of samples


@dataclass(frozen=True)
class Sample:
    """One sample of an archive.

    Attributes:
        archive: number of the archive.
        member: name of the picture's member.
        offset: where its content begins in the archive; the number of the member in a compressed one.
        size: its size in bytes.
        label: text of the member with the label.
        problem: why the sample cannot be used; empty if it can.
    """

    archive: int
    member: str
    offset: int
    size: int
    label: str | list[str]
    problem: str = ""


@path_checks.register("webdataset")
def check_root(spec: DataSpec) -> None:
    """Check that the archives exist."""
    archives(spec)


@picture_source("webdataset", options=("image", "label", "separator", "classes"))
def webdataset(spec: DataSpec, part: Part, cache_dir: Path) -> Pictures:
    """Read images in WebDataset tar files, without unpacking them.

    Options: ``image`` (suffix of the members with pictures, e.g. ``jpg``; by default the first one of a sample),
    ``label`` (``cls``, ``txt``, ``json``, ``json.FIELD``, or ``folder``: the class is the folder below that of the
    split, else that of the picture; by default ``cls``, else ``json``), ``separator`` (text between several labels),
    ``classes`` (list of class names, or a text file with one a line; by default ``classes.txt`` or ``classnames.txt``
    beside the archives), ``channels``, ``max_pixels``.

    A word in the name of an archive says which split it has (``train-0000.tar``), else a folder in it (``train/``).

    Raises:
        DataError: An archive cannot be read, or some samples cannot be used; the message names them by their member.
    """
    files = archives(spec)
    where = files[0].name if len(files) == 1 else f"{len(files)} archives"
    samples, key = _samples(spec, files, cache_dir)
    classes, numbered = _classes(spec, files)
    common = os.path.commonpath([path.parent for path in files])
    parts = [split_in_path(os.path.relpath(path, common).partition(".")[0]) for path in files]
    problems: list[str] = []
    rows: list[ImageRow] = []
    for one in samples:
        name = f"{files[one.archive].name}: {one.member}"
        if one.problem:
            problems.append(f"{name}: {one.problem}")
        split, path = parts[one.archive], one.member
        if not any(parts):
            split = next((found for name in PurePosixPath(path).parts[:-1] if (found := split_of(name))), "")
        rows.append(ImageRow(name, _label(one.label, numbered), path, split))
    refuse(problems, len(samples), where)
    chosen = arrange(rows, part, where=where, classes=classes)
    taken = [samples[row] for row in chosen.rows]
    return Pictures(
        [rows[row].name for row in chosen.rows],
        chosen.labels,
        chosen.classes,
        stable_key([key, chosen.rows.tolist(), chosen.classes]),
        lambda: _pictures(files, taken),
        chosen.validation,
        remarks=lambda: empty_classes(rows, classes, where),
    )


def archives(spec: DataSpec) -> list[Path]:
    """Return the archives of a source, sorted by path.

    Raises:
        UsageError: No root was given.
        DataError: There is no archive.
    """
    if spec.root is None:
        raise UsageError(f"data source {spec.source!r} needs {_WHAT}. Give it by --data-root PATH or data.root.")
    root = Path(spec.root).expanduser()
    if root.is_dir():
        found = {path for path in root.rglob("*") if path.name.lower().endswith(ARCHIVES) and path.name[0] != "."}
    else:
        patterns = _braces(str(root))
        found = {Path(match) for one in patterns for match in ([one] if Path(one).is_file() else glob(one))}
        if missing := [one for one in patterns if len(patterns) > 1 and not glob(one) and not Path(one).is_file()]:
            raise DataError(f"{len(missing)} of {len(patterns)} archives do not exist, e.g. {missing[0]}.")
    files = sorted(path for path in found if path.is_file())
    if not files:
        raise DataError(f"no archives at {root}; expected {_WHAT}.")
    return files


def _braces(pattern: str) -> list[str]:
    """Expand ``{0000..0009}`` and ``{a,b}`` as a shell does."""
    pieces: list[list[str]] = []
    for text, inside in re.findall(r"([^{]*)(?:\{([^{}]*)\})?", pattern):
        pieces.append([text])
        if inside:
            first, dots, last = inside.partition("..")
            if dots and first.isdigit() and last.isdigit() and int(last) - int(first) < 1_000_000:
                pieces.append([f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)])
            else:
                pieces.append(inside.split(","))
    return ["".join(parts) for parts in itertools.product(*pieces)]


def _classes(spec: DataSpec, files: Sequence[Path]) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return the class names of the option or of a file beside the archives; and those that numbers stand for."""
    folder = files[0].parent
    given = classes_of(spec, folder)
    if given is None:
        beside = [name for name in _CLASS_FILES if (folder / name).is_file()]
        if not beside:
            return None, ()
        given = classes_of(DataSpec(spec.source, options={"classes": beside[0]}), folder)
    return given, given or ()


def _label(label: str | list[str], names: Sequence[str]) -> Label:
    """Return a label as its class names; whole numbers are replaced by the names that they stand for."""

    def named(text: str) -> str:
        return names[int(text)] if text not in names and text.isdigit() and int(text) < len(names) else text

    return tuple(map(named, label)) if isinstance(label, list) else named(label)


def _samples(spec: DataSpec, files: Sequence[Path], cache_dir: Path) -> tuple[list[Sample], str]:
    """Return the samples of all archives, and a key that changes with them; the list is stored in the cache.

    Reading the headers of large archives takes minutes where they are compressed, and every worker needs them.
    """
    wanted = [spec.options.get("image"), spec.options.get("label"), separator_of(spec)]
    for name, value in zip(("image", "label"), wanted, strict=False):
        if value is not None and (not isinstance(value, str) or not value):
            raise UsageError(f"data option {name} is {value!r}; allowed: a text such as {_LABELS[0]!r}.")
    key = stable_key(["webdataset", _VERSION, [[path.name, *stamp(path)] for path in files], wanted])
    place = cache_dir / "images" / stable_key([key, "samples"])
    stored = open_array(place)
    if stored is None:
        listed = [one for number, path in enumerate(files) for one in _listed(path, number, wanted)]
        content = np.frombuffer(json.dumps([list(asdict(one).values()) for one in listed]).encode(), dtype=np.uint8)
        stored, _ = cached_array(place, content.shape, lambda out: _copy(out, content))
    return [Sample(*values) for values in json.loads(stored.tobytes())], key


def _copy(out: NDArray[np.uint8], content: NDArray[np.uint8]) -> None:
    out[:] = content


def _listed(path: Path, number: int, wanted: Sequence[Any]) -> Iterator[Sample]:
    """Yield the samples of one archive, in its order.

    Raises:
        DataError: The archive is damaged.
    """
    image, label, separator = wanted
    groups: dict[str, dict[str, tuple[str, int, int]]] = {}
    texts: dict[tuple[str, str], bytes] = {}
    kind = (label or "").partition(".")[0]
    try:
        with _opened(path) as (numbered, archive, plain):
            for index, member in numbered:
                key, suffix = _key(member.name, by_file=kind == _FOLDER)
                if not member.isreg() or not key:
                    continue
                place = member.offset_data if plain else index
                groups.setdefault(key, {})[suffix] = (member.name, place, member.size)
                if suffix in _LABELS and member.size <= _LARGEST_LABEL:
                    texts[key, suffix] = _content(archive, member)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"cannot read {path}: {first_line(error)}. It is damaged or no tar file.") from error
    for key, members in groups.items():
        found = [name for name in members if f".{name.rpartition('.')[2]}" in SUFFIXES and image in (None, name)]
        if not found:
            if any(name in _LABELS for name in members):
                names = ", ".join(sorted(members))
                yield Sample(number, key, 0, 0, "", f"no picture{f' .{image}' if image else ''}; it has {names}")
            continue
        name, place, size = members[min(found, key=lambda suffix: suffix.count("."))]  # jpg before mask.png
        try:
            text = _text(key, {name: texts[key, name] for name in members if (key, name) in texts}, label, separator)
            large = f"{size:,} bytes; allowed: {_LARGEST_PICTURE:,}" if size > _LARGEST_PICTURE else ""
            yield Sample(number, name, place, size, text, large)
        except ValueError as error:
            yield Sample(number, name, place, size, "", str(error))


def _key(name: str, *, by_file: bool) -> tuple[str, str]:
    """Return key and suffix of a member: the name up to the first dot of its last part, and the rest in small letters.

    With ``by_file``, only the last dot counts, since names of files may have others. The key of hidden members, and of
    a Mac's extended attributes, is empty.
    """
    path = PurePosixPath(name)
    base, dot, suffix = path.name.rpartition(".") if by_file else path.name.partition(".")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return ("", "") if hidden or not base or not dot else (str(path.with_name(base)), suffix.lower())


def _text(key: str, texts: dict[str, bytes], label: str | None, separator: str | None) -> str | list[str]:
    """Return the label of a sample.

    Raises:
        ValueError: It has none.
    """
    kind, _, field = (label or next((name for name in _LABELS[:2] if name in texts), "")).partition(".")
    if kind == _FOLDER:
        folders = PurePosixPath(key).parts[:-1]
        below = [folders[index + 1 :] for index, name in enumerate(folders) if split_of(name)]
        if not folders or (below and not below[0]):
            raise ValueError("no label: the picture is in no class folder")
        return below[0][0] if below else folders[-1]
    if kind not in texts:
        lacking = f".{label}" if label else ".cls or .json"
        raise ValueError(
            f"no label: the sample has no {lacking} member. If the folder of a picture is its class, use "
            "--set data.options.label=folder"
        )
    content = texts[kind].decode("utf-8")
    if kind == "json":
        values = json.loads(content)
        if not isinstance(values, dict):
            raise ValueError('its .json is no object such as {"label": …}')
        names = [field] if field else [name for name in LABEL_COLUMNS if name in values]
        if not names or names[0] not in values:
            raise ValueError(f"its .json has no {field or 'label'}; it has {', '.join(map(str, values)) or 'nothing'}")
        found = label_of(values, names[:1], separator)
    else:
        found = label_of({kind: content}, [kind], separator)
    return list(found) if isinstance(found, tuple) else found


def _pictures(files: Sequence[Path], samples: Sequence[Sample]) -> Iterator[tuple[int, Encoded]]:
    """Yield position and content of the samples, archive by archive, in the order of their members."""
    order = sorted(range(len(samples)), key=lambda i: (samples[i].archive, samples[i].offset))
    for number, members in itertools.groupby(order, key=lambda i: samples[i].archive):
        chosen = list(members)
        try:
            yield from _contents(files[number], [samples[i] for i in chosen], chosen)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"cannot read {files[number]}: {first_line(error)}.") from error


def _contents(path: Path, samples: Sequence[Sample], positions: Sequence[int]) -> Iterator[tuple[int, Encoded]]:
    if _is_plain(path):
        with path.open("rb") as file:
            for position, one in zip(positions, samples, strict=True):
                file.seek(one.offset)
                content = file.read(one.size)
                yield position, content if len(content) == one.size else DataError("the archive ends within it")
        return
    wanted = {one.offset: position for position, one in zip(positions, samples, strict=True)}
    with _opened(path) as (numbered, archive, _):
        for index, member in numbered:
            if index in wanted:
                yield wanted[index], _content(archive, member)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Iterator[tuple[int, tarfile.TarInfo]], tarfile.TarFile, bool]]:
    """Open an archive: its numbered members, the archive, and whether it is not compressed."""
    plain = _is_plain(path)

    def members() -> Iterator[tuple[int, tarfile.TarInfo]]:
        for index, member in enumerate(archive):
            yield index, member
            vars(archive)["members"].clear()  # tarfile would keep every header in memory

    with tarfile.open(path, "r:" if plain else "r|*") as archive:
        yield members(), archive, plain


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file: IO[bytes] | None = archive.extractfile(member)  # returns an open member; nothing is written
    return b"" if file is None else file.read()


def _is_plain(path: Path) -> bool:
    """Return whether a tar file is not compressed: its first header has the magic of POSIX or GNU tar, or is empty."""
    with path.open("rb") as file:
        head = file.read(512)
    return head[257:262] == b"ustar" or not any(head) or (os.path.getsize(path) % 512 == 0 and path.suffix == ".tar")
