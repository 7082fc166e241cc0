"""Files that survive a crash: folders that are complete or absent, with a hash of everything inside.

A folder is written under a temporary name, flushed to the disk, and renamed; ``MANIFEST.json`` holds size and
SHA-256 of each file and is verified before anything is parsed. Neither torch nor safetensors notices a
flipped bit by itself. Tensors are safetensors, everything else is JSON: nothing here can run code when it
is read.

A *checkpoint* is such a folder for one step of training, called ``step-STEP-KEY``: what is of another key is another
training, and is ranked by itself. The newest that verifies is loaded; a damaged one is skipped with a warning that
names it, and the one before is used.
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
        step: optimizer steps done.
        key: what was being trained; another key is another training. Part of a folder's name.
        tensors: on the CPU.
        facts: JSON values.
    """

    step: int
    key: str
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


def save(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write ``checkpoint`` below ``folder``; of its key this one and the newest others stay, ``keep`` in all.

    What stands at a higher step is either of another training, or could not be read and the training went back: it
    must not push out what has just been written. Those of other keys are left alone, for whoever goes back to them.

    Raises:
        ResourceError: disk full or not writable; earlier checkpoints are untouched.
    """
    files = {
        "tensors.safetensors": tensor_bytes(checkpoint.tensors),
        "facts.json": json.dumps(dict(checkpoint.facts)).encode(),
    }
    path = folder / f"{_PREFIX}{checkpoint.step:09d}-{checkpoint.key}"
    write_folder(path, files, facts={"step": checkpoint.step, "key": checkpoint.key})
    surplus = outdated(path.name, names(folder), keep=keep)
    for old in (*(folder / name for name in surplus), *_cut_off(folder)):
        shutil.rmtree(old, ignore_errors=True)
    return path


def names(folder: Path) -> list[str]:
    """Names of the checkpoints below ``folder``."""
    return [path.name for path in _found(folder)]


def ranked(names: Iterable[str]) -> dict[str, list[str]]:
    """Key to the names of its checkpoints, newest first; names of anything else are left out."""
    out: dict[str, list[str]] = {}
    for name in sorted((one for one in names if one.startswith(_PREFIX)), reverse=True):
        out.setdefault(_key_of(name), []).append(name)
    return out


def outdated(name: str, names: Iterable[str], *, keep: int = 2) -> list[str]:
    """Which of ``names`` go now that ``name`` is written: of its key, all but this one and the newest others."""
    others = [old for old in ranked(names).get(_key_of(name), ()) if old != name]
    return others[max(0, keep - 1) :]


def load(folder: Path, *, key: str) -> Checkpoint | None:
    """The newest checkpoint of ``key`` that verifies; ``None`` where there is none.

    Warns:
        UserWarning: for each damaged one that is passed over.
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
    """Remove all checkpoints below ``folder``, and what writers that were killed have left there."""
    for path in (*_found(folder), *_cut_off(folder)):
        shutil.rmtree(path, ignore_errors=True)


def write_folder(path: Path, files: Mapping[str, bytes], *, facts: Mapping[str, Any] | None = None) -> None:
    """Make the folder ``path`` hold exactly ``files`` and their manifest, or leave it as it was.

    Args:
        path: the folder; an existing one is replaced.
        files: name to content.
        facts: JSON values kept in the manifest.

    Raises:
        ResourceError: disk full or not writable.
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
    """Content of the files of ``path``, each verified, and the facts of its manifest.

    Raises:
        StoreError: a file is missing or differs from what was written.
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
    """The tensors as one safetensors file; views and devices are resolved."""
    from safetensors.torch import save as to_bytes

    data: bytes = to_bytes({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})
    return data


def tensors_from(data: bytes) -> dict[str, Tensor]:
    """The inverse of ``tensor_bytes``.

    Raises:
        ValueError: not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    try:
        tensors: dict[str, Tensor] = from_bytes(data)
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file: {error}") from error
    return tensors


def _found(folder: Path) -> list[Path]:
    """Checkpoints below ``folder``, newest first."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _cut_off(folder: Path) -> list[Path]:
    """Folders that a killed process was writing: one process writes below ``folder`` at a time, so nobody is."""
    return [path for path in folder.glob(".*-*") if path.is_dir()]


def _key_of(name: str) -> str:
    """What the checkpoint of a name is of."""
    return name.removeprefix(_PREFIX).partition("-")[2]


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_folder(scratch: Path, path: Path) -> None:
    """Rename ``scratch`` to ``path``; what was there is moved away first, as no folder replaces a full one."""
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
        os.rename(path, old / path.name)
        os.rename(scratch, path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(scratch, path)


def _sync(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders; its rename is durable by itself
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
