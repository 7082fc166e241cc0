"""Parquet and Arrow files of pictures, read in small batches, without decoding and without unpickling anything.

The Arrow files are those of Hugging Face's ``datasets``, in the stream or the file format. The names of classes come
from the features that ``datasets`` writes into the schema of both kinds of files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import AutodistillError, DataError, ResourceError
from autodistill.training.data.sources.pictures import Encoded

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".arrow")
NEEDS = "pip install 'autodistill-search[hf]'"
_BATCH = 16  # pictures read at once
_LABELS = 65_536  # labels read at once
_BUFFER = 2**20  # bytes read at once from a column of a Parquet file
_FILE_FORMAT = b"ARROW1"  # first bytes of Arrow's file format; the stream format has none


class ArrowFile:
    """One Parquet or Arrow file.

    Args:
        path: the file.

    Raises:
        DataError: The file cannot be read.
        ResourceError: pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _Reading(path):
            self.schema = self._schema()

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """Return the names of the classes that a column of whole numbers stands for; ``None`` if they have none."""
        feature = self._features().get(column)
        for _ in range(3):  # a list of classes is described by its element
            if isinstance(feature, list) and len(feature) == 1:
                feature = feature[0]
            elif isinstance(feature, Mapping) and isinstance(feature.get("feature"), (Mapping, list)):
                feature = feature["feature"]
        names = feature.get("names") if isinstance(feature, Mapping) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        return tuple(names)

    def rows(self, columns: Sequence[str], image: str) -> Iterator[dict[str, Any]]:
        """Yield values of columns for every row, and the path of its picture (or None) under the key ``""``."""
        import pyarrow as pa

        wanted, texts = list(columns), self.has_paths(image)
        kind = self.schema.field(image).type
        inner = f"{image}.path" if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 else ""
        for batch in self._batches([*wanted, *([inner] if inner else [image] if texts else [])], _LABELS):
            lists = {name: batch.column(batch.schema.get_field_index(name)).to_pylist() for name in wanted}
            cells = batch.column(batch.schema.get_field_index(image)) if inner or texts else None
            if cells is not None and inner:
                cells = cells.field(cells.type.get_field_index("path"))
            lists[""] = cells.to_pylist() if cells is not None else [None] * len(batch)
            for values in zip(*lists.values(), strict=True):
                yield dict(zip(lists, values, strict=True))

    def pictures(self, column: str) -> Iterator[Encoded]:
        """Yield the content of every picture: its bytes, or the file that its path names."""
        for batch in self._batches([column], _BATCH):
            cells = batch.column(batch.schema.get_field_index(column))
            for index in range(len(batch)):
                yield self._picture(cells[index].as_py())

    def has_paths(self, column: str) -> bool:
        """Return whether a column of pictures consists of paths of files."""
        import pyarrow as pa

        kind = self.schema.field(column).type
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    def check_pictures(self, column: str) -> None:
        """Check that a column can have pictures.

        Raises:
            DataError: It has another type.
        """
        import pyarrow as pa

        kind = self.schema.field(column).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return
        if not (self.has_paths(column) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise DataError(
                f"column {column!r} of {self.path.name} has the type {kind}; expected pictures: encoded bytes (PNG, "
                "JPEG …), paths of files, or the type Image of Hugging Face datasets."
            )

    def _picture(self, cell: Any) -> Encoded:
        if isinstance(cell, Mapping):
            content, path = cell.get("bytes"), cell.get("path")
        else:
            content, path = (cell, None) if isinstance(cell, bytes) else (None, cell)
        if content is not None:
            return content if isinstance(content, bytes) else DataError("its bytes are no bytes")
        if not isinstance(path, str) or not path:
            return DataError("no picture: neither bytes nor a path")
        if "://" in path:
            return DataError(f"{path} is no file on this machine, and nothing is downloaded")
        return self.path.parent / path

    def _features(self) -> Mapping[str, Any]:
        try:
            facts = json.loads((self.schema.metadata or {}).get(b"huggingface", b"{}"))
            features = facts["info"]["features"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}
        return features if isinstance(features, Mapping) else {}

    def _schema(self) -> pa.Schema:
        import pyarrow.parquet as pq

        if self.path.suffix.lower() == ".parquet":
            with pq.ParquetFile(self.path) as file:
                return file.schema_arrow
        with closing(self._arrow()) as reader:
            return reader.schema

    def _batches(self, columns: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some columns; ``image.path`` reads only one field of a Parquet file's column."""
        import pyarrow.parquet as pq

        with _Reading(self.path):
            if self.path.suffix.lower() == ".parquet":
                # pages are read as they are needed: a file of one row group must not be held in memory as a whole
                with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER) as file:
                    yield from file.iter_batches(batch_size=size, columns=list(columns), use_threads=False)
                return
            whole = list(
                dict.fromkeys(name.partition(".")[0] if name not in self.columns else name for name in columns)
            )
            with closing(self._arrow()) as reader:
                count = getattr(reader, "num_record_batches", None)
                batches = iter(reader) if count is None else map(reader.get_batch, range(count))
                for batch in batches:
                    chosen = batch.select(whole)
                    for start in range(0, len(chosen), size):
                        yield chosen.slice(start, size)

    def _arrow(self) -> Any:
        import pyarrow as pa

        with self.path.open("rb") as file:
            framed = file.read(len(_FILE_FORMAT)) == _FILE_FORMAT
        mapped = pa.memory_map(str(self.path))
        return _Closing(pa.ipc.open_file(mapped) if framed else pa.ipc.open_stream(mapped), mapped)


class _Closing:
    """A reader of Arrow batches that closes its file with it."""

    def __init__(self, reader: Any, file: Any) -> None:
        self._reader, self._file = reader, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._reader)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Reading:
    """Context that turns errors of pyarrow into errors that name the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ResourceError(f"reading {self._path.name} needs pyarrow: {NEEDS}.") from error

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, AutodistillError):
            return
        if isinstance(error, (OSError, ValueError, KeyError)):  # Arrow's own errors are ValueError, KeyError or OSError
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(f"cannot read {self._path}: {first}. It is damaged or no Parquet or Arrow file.") from error
