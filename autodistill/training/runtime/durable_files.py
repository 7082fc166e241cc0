"""Folders that survive a crash: each is complete or absent, and holds a hash of every file.

A folder is written under a temporary name, flushed to the disk, and renamed. ``MANIFEST.json`` holds the size and
SHA-256 of each file and is verified before anything is parsed, because neither torch nor safetensors detects a flipped
bit. Tensors are stored as safetensors and everything else as JSON, so reading a folder cannot run code.

A *checkpoint* is such a folder for one step of a training, called ``step-STEP-KEY``. Each key belongs to one training,
and checkpoints are ranked per key. Loading returns the newest checkpoint that verifies: a damaged one is skipped with a
warning that names it, and the previous one is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor

from autodistill.core.errors import ResourceError, StoreError

MANIFEST = "MANIFEST.json"
FORMAT = 1
_PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """State of a training at one step.

    Attributes:
        step: number of optimizer steps done.
        key: identifies the training; part of the folder's name.
        tensors: name to tensor, on the CPU.
        facts: name to JSON value.
    """

    step: int
    key: str
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


def save(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write ``checkpoint`` below ``folder`` and remove old ones of the same key, so that ``keep`` are left.

    The new checkpoint is always kept, even if others of its key have a higher step: those could not be read, and the
    training continued from an earlier one. Checkpoints of other keys are not removed, because a study may return to
    them.

    Raises:
        ResourceError: The disk is full or not writable; earlier checkpoints are unchanged.
    """
    files = {
        "tensors.safetensors": tensor_bytes(checkpoint.tensors),
        "facts.json": json.dumps(dict(checkpoint.facts)).encode(),
    }
    path = folder / f"{_PREFIX}{checkpoint.step:09d}-{checkpoint.key}"
    write_folder(path, files, facts={"step": checkpoint.step, "key": checkpoint.key})
    surplus = outdated(path.name, names(folder), keep=keep)
    for old in (*(folder / name for name in surplus), *_unfinished(folder)):
        shutil.rmtree(old, ignore_errors=True)
    return path


def names(folder: Path) -> list[str]:
    """Return the names of the checkpoints below ``folder``."""
    return [path.name for path in _found(folder)]


def ranked(names: Iterable[str]) -> dict[str, list[str]]:
    """Group the names of checkpoints by key, newest first; other names are left out."""
    out: dict[str, list[str]] = {}
    for name in sorted((one for one in names if one.startswith(_PREFIX)), reverse=True):
        out.setdefault(_key_of(name), []).append(name)
    return out


def outdated(name: str, names: Iterable[str], *, keep: int = 2) -> list[str]:
    """Return the names to remove after ``name`` was written: those of its key except itself and the newest others."""
    others = [old for old in ranked(names).get(_key_of(name), ()) if old != name]
    return others[max(0, keep - 1) :]


def load(folder: Path, *, key: str) -> Checkpoint | None:
    """Load the newest checkpoint of ``key`` that verifies; return ``None`` if there is none.

    Warns:
        UserWarning: For each damaged checkpoint that is skipped.
    """
    for path in _found(folder):
        try:
            files, facts = read_folder(path)
            if facts.get("key") != key:
                continue
            tensors = tensors_from(files["tensors.safetensors"])
            return Checkpoint(int(facts["step"]), key, tensors, json.loads(files["facts.json"]))
        except (StoreError, KeyError, ValueError) as error:
            warnings.warn(f"{error} The checkpoint before it is used.", stacklevel=2)
    return None


def clear(folder: Path) -> None:
    """Remove all checkpoints below ``folder``, and temporary folders of killed writers."""
    for path in (*_found(folder), *_unfinished(folder)):
        shutil.rmtree(path, ignore_errors=True)


def write_folder(path: Path, files: Mapping[str, bytes], *, facts: Mapping[str, Any] | None = None) -> None:
    """Write a folder that holds exactly ``files`` and their manifest; on failure it stays as it was.

    Args:
        path: the folder; an existing one is replaced.
        files: name to content.
        facts: JSON values to store in the manifest.

    Raises:
        ResourceError: The disk is full or not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise ResourceError(f"cannot write below {path.parent}: {error}.") from error
    try:
        listed = {name: {"size": len(data), "sha256": _sha256(data)} for name, data in files.items()}
        manifest = {"format": FORMAT, "facts": dict(facts or {}), "versions": _versions(), "files": listed}
        for name, data in files.items():
            _write(scratch / name, data)
        _write(scratch / MANIFEST, json.dumps(manifest, indent=1).encode())
        _sync(scratch)
        replace_folder(scratch, path)
        _sync(path.parent)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error}. Nothing that was there is lost.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_folder(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Read and verify the files of ``path``; return their contents by name, and the facts of the manifest.

    Raises:
        StoreError: A file is missing or differs from what was written.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        files: dict[str, bytes] = {}
        for name, listed in manifest["files"].items():
            if Path(name).name != name:
                raise StoreError(f"{path / MANIFEST} names {name!r}, which is outside its folder.")
            data = (path / name).read_bytes()
            if len(data) != listed["size"] or _sha256(data) != listed["sha256"]:
                raise StoreError(f"{path / name} is damaged: its hash differs from the manifest's.")
            files[name] = data
        return files, dict(manifest["facts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is damaged: {type(error).__name__}: {error}.") from error


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the tensors as one safetensors file, after copying them to contiguous memory on the CPU."""
    from safetensors.torch import save as to_bytes

    data: bytes = to_bytes({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})
    return data


def tensors_from(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; the inverse of ``tensor_bytes``.

    Raises:
        ValueError: ``data`` is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    try:
        tensors: dict[str, Tensor] = from_bytes(data)
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file: {error}") from error
    return tensors


def _found(folder: Path) -> list[Path]:
    """Return the checkpoints below ``folder``, newest first."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _unfinished(folder: Path) -> list[Path]:
    """Return unfinished folders of killed writers; only one process at a time writes below ``folder``."""
    return [path for path in folder.glob(".*-*") if path.is_dir()]


def _key_of(name: str) -> str:
    """Return the key in the name of a checkpoint."""
    return name.removeprefix(_PREFIX).partition("-")[2]


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_folder(scratch: Path, path: Path) -> None:
    """Rename ``scratch`` to ``path``; an existing folder is moved away first, since rename only replaces empty ones."""
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
        os.rename(path, old / path.name)
        os.rename(scratch, path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(scratch, path)


def _sync(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened on Windows, where a rename is durable by itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("torch", "timm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found
