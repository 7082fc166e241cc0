"""Storage of folders and files at a URL that pyarrow supports, for workers that cannot access the study's folder.

Each folder is stored as one object: the hexadecimal SHA-256 of the rest, then a zip archive. Object stores cannot
rename folders, but a single object can be written under a temporary name and moved, so it is complete or absent. Its
hash is verified before it is unpacked. ``trials/remote_trials.py`` decides what is stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from autodistill.core.errors import ResourceError, StoreError, UsageError
from autodistill.training.runtime.durable_files import replace_folder

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_HASH = 64  # characters
_PART = ".part"
_EXAMPLE = "s3://bucket/folder, gs://…, hdfs://… or file:///folder"


@dataclass(frozen=True)
class RemoteFolder:
    """Objects below one URL.

    Attributes:
        url: URL of the folder; names of objects are relative to it, with slashes.
    """

    url: str

    @classmethod
    def at(cls, url: str) -> RemoteFolder:
        """Return the remote folder at ``url``, which may also be a path on this machine.

        Raises:
            UsageError: pyarrow does not support the URL, or the URL contains a password.
        """
        url = url.rstrip("/") if "://" in url else Path(url).expanduser().absolute().as_uri()
        if urlsplit(url).password is not None:
            raise UsageError(
                f"the URL of the storage at {urlsplit(url).hostname} contains a password, which would be saved with "
                "the study; leave it out and set it where the storage's own tools look, e.g. AWS_SECRET_ACCESS_KEY."
            )
        remote_folder = cls(url)
        remote_folder._place  # noqa: B018 - checks that pyarrow supports the URL
        return remote_folder

    def below(self, name: str) -> RemoteFolder:
        """Return the remote folder ``name`` below this one."""
        before, mark, query = self.url.partition("?")
        return RemoteFolder(f"{before}/{name}{mark}{query}")

    def names(self, below: str = "") -> list[str]:
        """Return the names of all objects, or of those below one name.

        Raises:
            ResourceError: The storage does not answer.
        """
        from pyarrow.fs import FileSelector, FileType

        start = f"{self._root}/{below}".rstrip("/")
        with _errors(f"cannot list {self.url}"):
            found = self._files.get_file_info(FileSelector(start, recursive=True, allow_not_found=True))
        root = PurePosixPath(self._root.lstrip("/"))
        paths = [PurePosixPath(one.path.lstrip("/")) for one in found if one.type == FileType.File]
        return sorted(path.relative_to(root).as_posix() for path in paths if path.suffix != _PART)

    def put(self, name: str, path: Path) -> None:
        """Store a folder or a single file under ``name``, replacing an existing object.

        A file is stored as a folder that contains only this file. Nothing is sent if the stored hash is the same.

        Raises:
            ResourceError: The object cannot be written; an existing one is unchanged.
        """
        content = _pack(path)
        head = hashlib.sha256(content).hexdigest().encode()
        target = f"{self._root}/{name}"
        scratch = f"{target}.{secrets.token_hex(6)}{_PART}"
        with _errors(f"cannot write {name} to {self.url}; nothing that was there is lost"):
            if self._head(target) == head:
                return
            self._files.create_dir(target.rpartition("/")[0], recursive=True)
            try:
                with self._files.open_output_stream(scratch) as stream:
                    stream.write(head)
                    stream.write(content)
                self._files.move(scratch, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._files.delete_file(scratch)
                raise

    def get(self, name: str, folder: Path) -> None:
        """Replace ``folder`` by the content of the object ``name``; on failure ``folder`` stays as it was.

        Raises:
            StoreError: The object is damaged.
            ResourceError: The object does not exist, or cannot be read or unpacked.
        """
        with _errors(f"cannot fetch {name} from {self.url}"):
            with self._files.open_input_stream(f"{self._root}/{name}") as stream:
                data: bytes = stream.read()
            head, content = data[:_HASH], data[_HASH:]
            if head != hashlib.sha256(content).hexdigest().encode():
                raise StoreError(f"{name} at {self.url} is damaged: its hash differs from what was written.")
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    archive.extractall(scratch)  # zipfile sanitizes names that point outside the folder
                replace_folder(scratch, folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Remove the object ``name``, or all objects below it; do nothing if there are none.

        Raises:
            ResourceError: The storage does not answer.
        """
        from pyarrow.fs import FileType

        target = f"{self._root}/{name}".rstrip("/")
        with _errors(f"cannot remove {name} from {self.url}"), contextlib.suppress(FileNotFoundError):
            kind = self._files.get_file_info(target).type
            if kind == FileType.File:
                self._files.delete_file(target)
            elif kind == FileType.Directory:
                self._files.delete_dir(target)

    def _head(self, target: str) -> bytes:
        try:
            with self._files.open_input_stream(target) as stream:
                return bytes(stream.read(_HASH))
        except FileNotFoundError:
            return b""

    @property
    def _files(self) -> FileSystem:
        return self._place[0]

    @property
    def _root(self) -> str:
        return self._place[1]

    @cached_property
    def _place(self) -> tuple[Any, str]:
        from pyarrow.fs import FileSystem

        try:
            files, root = FileSystem.from_uri(self.url)
        except (ImportError, OSError, ValueError) as error:
            raise UsageError(f"{self.url} cannot be used as a storage: {error}. Write e.g. {_EXAMPLE}.") from error
        return files, root.rstrip("/")


def _pack(path: Path) -> bytes:
    """Pack a folder's files, or one file, into a zip archive; equal content gives equal bytes."""
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    top = path.parent if path.is_file() else path
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:  # uncompressed, because weights do not shrink
        for one in files:
            archive.writestr(zipfile.ZipInfo(one.relative_to(top).as_posix()), one.read_bytes())
    return out.getvalue()


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    """Convert errors of the file system to ``ResourceError``, with ``what`` as the start of the message."""
    try:
        yield
    except (OSError, zipfile.BadZipFile) as error:
        raise ResourceError(f"{what}: {error}.") from error
