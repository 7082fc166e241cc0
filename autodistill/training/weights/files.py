"""Weight files: recognised by content, opened for tensors only, and matched to a network by tensor names.

Opening a file never runs its code: torch's files are opened with ``weights_only``. A file that cannot be opened this
way is refused, with instructions for saving it again.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autodistill.core.errors import TeacherError, first_lines, nearest
from autodistill.training.runtime.durable_files import tensors_from

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")
"""Suffixes of weight files; ``.tar`` is for names like ``model_best.pth.tar``, which are not archives."""

PICKLED = frozenset({".ts", ".torchscript", ".pt2", ".pkl", ".pickle", ".joblib", ".h5", ".keras", ".npy", ".jit"})
"""Suffixes of files that are never opened."""

SAVE = "from safetensors.torch import save_file; save_file(model.state_dict(), 'teacher.safetensors')"
"""Code that saves weights in a safe format, for messages."""

OWN = "or build the network yourself and name the function: --teacher module:factory --teacher-weights FILE"

_MAX_BYTES = 16 * 2**30
_HEAD = 1024  # bytes read to recognise the kind of a file
_MOST_HEADER = 100 * 2**20  # largest safetensors header in bytes, as in the library
_LISTED = 3  # names or files that a message lists
_NEIGHBOURS = 1000
_CONTAINERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model", "net", "network",
    "weights", "module",
)  # fmt: skip
"""Keys under which checkpoints store the network; averaged weights come first, because evaluation uses them."""

_DEEPEST = 4
_TRIED = 5  # number of prefixes to try, most frequent first
_COUNTER = "num_batches_tracked"  # counter of BatchNorm; torch loads weights without it
_AVERAGED = "n_averaged"  # counter of torch.optim.swa_utils.AveragedModel
_COMPILED = "_orig_mod."  # prefix of torch.compile; it may occur before any part of a name


def check_file(path: Path, what: str = "weights") -> None:
    """Refuse a file that does not exist or, judging by its first bytes, cannot hold weights.

    Args:
        path: path of the file.
        what: role of the file in messages.

    Raises:
        TeacherError: the path is a folder or does not exist, or the file is empty, a web page, a pointer of git-lfs or
            compressed.
    """
    label = f"{what} {path}"
    if path.is_dir():
        raise TeacherError(f"{label}: that is a folder; {within(path)}")
    if not path.exists():
        close = nearest(path.name, _file_names(path.parent), 1)
        meant = f"; did you mean {str(path.parent / close[0])!r}?" if close else "."
        raise TeacherError(f"{label}: that file does not exist{meant}")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise TeacherError(f"{label} cannot be read: {error}.") from error
    if not size:
        raise TeacherError(f"{label}: the file is empty (0 bytes); copy or download it again.")
    if head.startswith(b"version https://git-lfs"):
        named = re.search(rb"\bsize (\d+)", head)
        real = f" in place of {int(named[1]):,}" if named else ""
        raise TeacherError(
            f"{label}: this is a pointer of git-lfs ({size:,} bytes{real}); fetch the file itself: run 'git lfs pull' "
            "in its repository, or download it."
        )
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise TeacherError(
            f"{label}: this is a web page, not the file: it was saved from the page that shows the file. Download "
            "the file itself (on the Hugging Face hub /resolve/ in place of /blob/, on GitHub the 'raw' button)."
        )
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ")):
        raise TeacherError(f"{label}: the file is compressed; unpack it and give the file inside.")


def holds_weights(path: Path) -> bool:
    """Return whether a file is a weight file by its suffix or content."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return _is_safetensors(head) or (head[:2] == b"\x80\x02") or (head[:2] == b"PK" and _torch_archive(path))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of a safetensors file, or of a torch file that holds only tensors and plain values.

    In a checkpoint, the network is found under a common key (``state_dict``, ``model``, ``ema`` …).

    Raises:
        TeacherError: the file is missing, damaged, or contains other pickled objects.
    """
    if path.suffix.lower() in PICKLED:
        raise TeacherError(f"{path}: {why_refused(path)}")
    if path.suffix.lower() in (".onnx", ".npz") and path.is_file():
        raise TeacherError(
            f"weights {path}: a {path.suffix} file is a complete teacher: give --teacher {path} without weights."
        )
    check_file(path)
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise TeacherError(f"weights {path} are larger than {_MAX_BYTES >> 30} GiB.")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        loaded = _safetensors(path, size) if _is_safetensors(head) else _torch_file(path, head)
    except OSError as error:
        raise TeacherError(f"weights {path} cannot be read: {error}.") from error
    found = named_tensors(loaded)
    if not found:
        keys = f"the keys {_some(map(str, loaded))}" if isinstance(loaded, Mapping) else type(loaded).__name__
        raise TeacherError(f"weights {path} hold no named tensors, but {keys}. Save only the weights: {SAVE}.")
    return found


def named_tensors(loaded: Any, depth: int = _DEEPEST) -> dict[str, Tensor]:
    """Find the network's tensors by name in a checkpoint, also nested; empty if there are none."""
    if not isinstance(loaded, Mapping) or not depth:
        return {}
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if len(tensors) == len(loaded):
        return tensors
    for key in _CONTAINERS:
        if found := named_tensors(loaded.get(key), depth - 1):
            return found
    return tensors


def why_refused(path: Path) -> str:
    """Return the message for a file that could run code, with instructions for saving its weights safely."""
    return (
        f"{path.suffix} files can run code when they are opened; it was not opened. Save only the weights where the "
        f"network can be loaded: {SAVE} (docs/how_to/own_teacher.md)."
    )


def fit(
    weights: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    label: str,
    *,
    classes: int | None = None,
    shapes: bool = True,
) -> dict[str, Tensor]:
    """Rename ``weights`` to the names of ``wanted``.

    A prefix that all names of one side share is removed or added if that makes the names fit: ``module.``, ``model.``,
    ``net.``, ``backbone.``, ``encoder.`` …. ``_orig_mod.`` of compiled networks and the counter ``n_averaged`` are
    removed.

    Args:
        weights: name to tensor, as in the file.
        wanted: name to tensor, as in the network; only the shapes are used, so they may be on the ``meta`` device.
        label: label of the file and the network, for messages.
        classes: number of classes of the images, if known.
        shapes: whether to compare the shapes too.

    Raises:
        TeacherError: names or shapes differ; the message lists missing and unexpected tensors and advice.
    """
    plain = {name: value for name, value in weights.items() if name in wanted or name.split(".")[-1] != _AVERAGED}
    best: tuple[int, dict[str, Tensor], str] = (-1, plain, "")
    for named, prefix in _spellings(plain, wanted):
        found = set(named)
        if _needed(wanted) <= found <= set(wanted):
            if shapes:
                _check_shapes(named, wanted, label, classes)
            return named
        common = len(found & set(wanted))
        best = max(best, (common, named, prefix), key=lambda one: one[0])
    raise TeacherError(_other_names(best[1], wanted, best[2], label))


def ending(weights: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Find the tensor whose name ends with ``name``; of several, that of the outermost layer."""
    found = [key for key in weights if f".{key}".endswith(f".{name}")]
    return weights[min(found, key=len)] if found else None


def _spellings(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterable[tuple[dict[str, Tensor], str]]:
    """Yield the weights unchanged, then under other names, each time with the removed prefix."""
    yield dict(weights), ""
    unwrapped = {name.replace(_COMPILED, ""): value for name, value in weights.items()}
    for before in _shared(wanted):
        inner = {name.removeprefix(before) for name in wanted}
        prefixes = Counter(prefix for name in unwrapped for prefix in _prefixes(name) if name[len(prefix) :] in inner)
        for prefix, _ in prefixes.most_common(_TRIED):
            named = {
                before + name.removeprefix(prefix) if name.startswith(prefix) else name: value
                for name, value in unwrapped.items()
            }
            if len(named) == len(weights):  # else two tensors would have one name
                yield named, prefix


def _shared(names: Iterable[str]) -> list[str]:
    """Return the prefixes, up to a dot, that all names share: ``""``, ``net.``, ``net.body.`` and so on."""
    every = list(names)
    return [one for one in _prefixes(every[0]) if all(name.startswith(one) for name in every)] if every else [""]


def _prefixes(name: str) -> list[str]:
    """Return all prefixes of a name up to a dot, e.g. ``""``, ``net.``, ``net.conv.`` of ``net.conv.weight``."""
    return ["", *(name[: place + 1] for place, letter in enumerate(name) if letter == ".")]


def _needed(wanted: Mapping[str, Tensor]) -> set[str]:
    return {name for name in wanted if not name.endswith(_COUNTER)}


def _check_shapes(named: Mapping[str, Tensor], wanted: Mapping[str, Tensor], label: str, classes: int | None) -> None:
    pairs = {name: (tuple(named[name].shape), tuple(value.shape)) for name, value in wanted.items() if name in named}
    differ = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if not differ:
        return
    rows = {have[:1] for have, _ in differ.values()}
    heads = all(have[1:] == want[1:] and want[:1] == (classes,) for have, want in differ.values())
    if classes is not None and heads and len(rows) == 1 and (count := next(iter(rows))):
        raise TeacherError(
            f"{label}: the weights are for {count[0]} classes ({_some(differ)}), the images have {classes}. Where the "
            f"images' classes are among those {count[0]}, build it with all of them and select yours: "
            f"--set teacher.options.num_classes={count[0]} --set 'teacher.options.class_map=[…]'. Or fine-tune a "
            "teacher on these images: autodistill teach --model NAME --pretrained."
        )
    shown = [f"{name} {list(have)} in the file, {list(want)} in the network" for name, (have, want) in differ.items()]
    raise TeacherError(
        f"{label}: the names are equal, but {len(differ)} of {len(wanted)} shapes differ ({_some(shown, '; ')}). It is "
        f"another size or variant of the architecture: give its name or options, {OWN}."
    )


def _other_names(named: Mapping[str, Tensor], wanted: Mapping[str, Tensor], prefix: str, label: str) -> str:
    missing = [name for name in wanted if name not in named and not name.endswith(_COUNTER)]
    left = [name for name in named if name not in wanted]
    off = f" after removing the prefix {prefix!r}" if prefix else ""
    if not missing:
        kept = f"k.removeprefix({prefix!r}): v for k, v in weights.items() if k.startswith({prefix!r})"
        alone = f", {{{kept}}}" if prefix else ""
        return (
            f"{label}: the file has all that the network needs{off}, but {len(left)} of its {len(named)} tensors are "
            f"left over ({_some(left)}); they may belong to a part that this network lacks. Save only the tensors of "
            f"this network{alone}, {OWN}."
        )
    counts = (
        f"{len(missing)} of {len(_needed(wanted))} tensors of the network are missing in the file ({_some(missing)}), "
        f"{len(left)} of {len(named)} in the file are left over ({_some(left)})"
        if left
        else f"{len(missing)} of {len(_needed(wanted))} tensors of the network are missing in the file "
        f"({_some(missing)}), none is left over"
    )
    return f"{label}: {counts}{off}. Give the architecture that they were saved from, {OWN}."


def _some(names: Iterable[str], between: str = ", ") -> str:
    every = list(names)
    return between.join([*every[:_LISTED], *(["…"] if len(every) > _LISTED else [])])


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _MOST_HEADER


def _safetensors(path: Path, size: int) -> dict[str, Tensor]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
    whole = 8 + length
    if len(header) == length:
        try:
            entries = json.loads(header)
            whole += max((one["data_offsets"][1] for key, one in entries.items() if key != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise TeacherError(f"weights {path} are damaged: their header cannot be read ({error}).") from error
    if size < whole:
        raise TeacherError(
            f"weights {path} are cut off: {size:,} bytes of at least {whole:,} are there; copy or download them again."
        )
    try:
        return tensors_from(path.read_bytes())
    except ValueError as error:
        raise TeacherError(f"weights {path} are damaged: {error}; copy or download them again.") from error


def _torch_file(path: Path, head: bytes) -> Any:
    """Load a file of torch with its restricted reader, which never runs code."""
    if head[:2] == b"PK" and not zipfile.is_zipfile(path):
        raise TeacherError(
            f"weights {path} are cut off: the directory at the end of the file is missing; copy or download them again."
        )
    if head[:2] == b"PK" and not _torch_archive(path):
        raise TeacherError(
            f"weights {path} are an archive, but not one of torch.save: a network of TorchScript, or something else. "
            f"Save only the weights: {SAVE}."
        )
    if head[:2] != b"PK" and head[:1] != b"\x80":
        raise TeacherError(
            f"weights {path} are not a weight file, neither of safetensors nor of torch.save. Save them with: {SAVE}."
        )
    try:
        with path.open("rb") as file:  # given a path, torch would choose the format by its suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted reader raises many types for hostile and damaged files
        objects = _objects(path, error)
        if not objects and type(error).__name__ != "UnpicklingError":  # by name, to avoid importing pickle
            raise TeacherError(
                f"weights {path} are damaged or of another program ({first_lines(error)}); copy or download them again."
            ) from error
        named = f" ({_some(objects)})" if objects else ""
        raise TeacherError(
            f"weights {path} hold Python objects beside tensors{named}. Opening them can run code, so they were not "
            f"opened. Save only the weights where the network can be loaded: {SAVE}. If you have only this file: "
            "docs/how_to/own_teacher.md, 'Files with more than tensors'."
        ) from error


def _objects(path: Path, error: Exception) -> Sequence[str]:
    """Return the names of the classes and functions for which a file was refused; reading them runs no code."""
    listing = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    try:
        if listing is not None and zipfile.is_zipfile(path):
            return sorted(listing(path))
    except Exception:  # a hostile file may be wrong in any way
        pass
    return re.findall(r"GLOBAL ([\w.]+)", str(error))[:1]


def _torch_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.split("/")[-1] for name in archive.namelist()}
            return "data.pkl" in names and "constants.pkl" not in names  # TorchScript archives have constants.pkl
    except (OSError, zipfile.BadZipFile):
        return False


def _file_names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in itertools.islice(os.scandir(folder), _NEIGHBOURS) if entry.is_file()]
    except OSError:
        return []


def within(folder: Path) -> str:
    """Return what to give in place of a folder without a known network, for messages."""
    names = _file_names(folder)
    if "teacher.json" in names:
        return f"it is a complete teacher of autodistill: give --teacher {folder} without weights."
    files = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
    if files:
        return f"give the file in it: {_some(str(folder / name) for name in files)}."
    return f"give a file ({', '.join(SUFFIXES)}); there is none in it."
