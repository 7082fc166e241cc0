"""Reading of ONNX files whose tensors lie in other files (*external data*), as exporters write large networks.

Such a file names other files by path, and ONNX Runtime would read them wherever they are. Here the tensors are taken
into the model instead, from regular files in the folder of the ONNX file or below it only; nothing else is opened. The
result is one self-contained model. Source of the format: "External Data" in the documents of the ONNX repository.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from autodistill.core.errors import UsageError

_MOST = 2**31 - 2**20
"""Largest content in bytes; protobuf, the format of ONNX files, ends at 2 GiB."""

_ONE_FILE = (
    "write all tensors into the file, torch.onnx.export(…, external_data=False) or "
    "onnx.save_model(onnx.load('{name}'), 'one_file.onnx', save_as_external_data=False)"
)


def read_model(path: Path) -> bytes:
    """Return the content of an ONNX file with the tensors of its external files taken in.

    Raises:
        OSError: the file, or a file that it names, cannot be read.
        UsageError: it is not an ONNX file, or names a file outside its own folder, a part that the file does not have,
            or too much data for one file.
    """
    content = path.read_bytes()
    if b"location" not in content:  # every external tensor has such a key
        return content
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # the types of protobuf's errors depend on its version
        raise UsageError(f"{path} is not an ONNX file: {str(error)[:200]}") from error
    outside = [one for one in _tensors(model) if one.data_location == onnx.TensorProto.EXTERNAL]
    if not outside:
        return content
    total = len(content)
    for tensor in outside:
        data = _read(path, {entry.key: entry.value for entry in tensor.external_data})
        total += len(data)
        if total > _MOST:
            raise UsageError(
                f"{path} and its external data have more than 2 GiB, which one ONNX model cannot hold. Export it in "
                "fp16, or give a function that runs it (module:factory)."
            )
        tensor.raw_data = data
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
    return bytes(model.SerializeToString())


def _tensors(message: Any) -> Iterator[Any]:
    """Yield every tensor of a model wherever it is: initializers, attributes, functions, subgraphs."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        several = hasattr(value, "__len__") and not hasattr(value, "DESCRIPTOR")
        for one in value if several else (value,):
            yield from _tensors(one)


def _read(path: Path, where: dict[str, str]) -> bytes:
    """Read the part of a file that an external tensor names."""
    file = _inside(path, where.get("location", ""))
    try:
        offset, length = int(where.get("offset", 0)), int(where.get("length", -1))
    except ValueError:
        raise UsageError(f"{path} names a part of {file.name} that is no number: {where}.") from None
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as stream:
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError(f"{path} names {file}, which is not a regular file.")
        wanted = facts.st_size - offset if length < 0 else length
        if offset < 0 or wanted < 0 or offset + wanted > facts.st_size:
            raise UsageError(
                f"{path} needs bytes {offset:,} to {offset + wanted:,} of {file.name}, which has {facts.st_size:,}: "
                "that file is cut off, or belongs to another network."
            )
        stream.seek(offset)
        return stream.read(wanted)


def _inside(path: Path, location: str) -> Path:
    """Return the file ``location`` if it is in the folder of ``path`` or below it.

    Raises:
        UsageError: it is elsewhere, also by way of a link, or does not exist.
    """
    folder = path.parent.resolve()
    plain = PurePosixPath(location)
    named = plain.is_absolute() or PureWindowsPath(location).is_absolute() or ".." in plain.parts or "\\" in location
    file = folder if named or not location else (folder / plain).resolve()
    if folder not in file.parents:
        raise UsageError(
            f"{path} keeps tensors in {location!r}, outside its own folder, and such files are not read. Copy that "
            f"file beside {path.name} and export it with that name, or {_ONE_FILE.format(name=path.name)}."
        )
    if not file.exists():
        raise UsageError(
            f"{path} keeps tensors in {location!r}, and {file} does not exist. Copy that file beside {path.name}, or "
            f"{_ONE_FILE.format(name=path.name)}."
        )
    return file
