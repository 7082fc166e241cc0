"""Row format of a teacher cache: the teacher's output for one view of one image, with a checksum.

A row holds the logits of all classes in half precision. A temperature above 1, and losses that compare the spread of
the logits, need the unlikely classes too. Logits are stored instead of probabilities, so that any temperature can be
applied later. They are stored relative to the largest logit, because half precision is finest near zero; this keeps
the probabilities of likely classes accurate. The largest logit itself is a float32.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodistill.core.errors import TeacherError

_HALF_MAX = 65504.0
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Rows = npt.NDArray[np.void]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowFormat:
    """Binary format of a row.

    Attributes:
        classes: number of classes of the teacher.
        embedding: width of the teacher's embedding; 0 if it is not stored.
    """

    classes: int
    embedding: int = 0

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Fields of a row, little-endian and packed; ``check`` is first and covers the others."""
        head, logits = [("check", "<u4"), ("level", "<f4")], ("logits", "<f2", (self.classes,))
        kept = [("embedding", "<f2", (self.embedding,))] if self.embedding else []
        return np.dtype([*head, logits, *kept])

    def encode(self, logits: Floats, embedding: Floats | None, numbers: Ints, seed: int) -> Rows:
        """Encode teacher outputs as rows.

        Args:
            logits: (n, classes).
            embedding: (n, width), or ``None`` if it is not stored.
            numbers: (n,) positions of the rows in the cache; a row read at another position fails its check.
            seed: seed of the checks, different for each cache.

        Raises:
            TeacherError: an output is not finite.
        """
        for what, values in (("logits", logits), ("embedding", embedding)):
            if values is not None and not np.isfinite(values).all():
                raise TeacherError(f"the teacher's {what} are not finite; check its weights and precision.")
        rows = np.zeros(len(logits), self.dtype)
        level = logits.max(axis=1)
        rows["level"] = level
        rows["logits"] = (logits - level[:, None]).clip(-_HALF_MAX, 0)
        if embedding is not None:
            rows["embedding"] = embedding.clip(-_HALF_MAX, _HALF_MAX)
        rows["check"] = self.checks(rows, numbers, seed)
        return rows

    def decode(self, rows: Rows) -> tuple[Floats, Floats | None]:
        """Decode logits (n, classes) and embedding (n, width), or ``None``, from ``rows``."""
        logits = rows["logits"].astype(np.float32)
        logits += rows["level"][:, None]
        return logits, rows["embedding"].astype(np.float32) if self.embedding else None

    def checks(self, rows: Rows, numbers: Ints, seed: int) -> npt.NDArray[np.uint32]:
        """Compute the check of each row: a multilinear hash of its words, its number and ``seed``.

        A changed word always changes the 64-bit sum. Only the upper half of its scrambled value is stored, so one
        damaged row in 2³² goes undetected. The check detects damage, not forgery.
        """
        size = self.dtype.itemsize
        padded = np.zeros((len(rows), -(-size // 4) * 4), np.uint8)
        padded[:, :size] = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), size)
        words = padded.view("<u4")[:, 1:].astype(np.uint64)  # the first word is the check itself
        with np.errstate(over="ignore"):
            sums = (words * _weights(words.shape[1])).sum(axis=1, dtype=np.uint64)
            start = _scrambled(numbers.astype(np.uint64) + np.uint64(seed % (1 << 64)) * _GOLDEN)
            return (_scrambled(sums + start) >> np.uint64(32)).astype(np.uint32)

    def intact(self, rows: Rows, numbers: Ints, seed: int) -> npt.NDArray[np.bool_]:
        """Return which rows have the right check."""
        return np.asarray(rows["check"] == self.checks(rows, numbers, seed))


@functools.cache
def _weights(count: int) -> npt.NDArray[np.uint64]:
    """Return odd multipliers for the words of a row."""
    return _scrambled(np.arange(1, count + 1, dtype=np.uint64)) | np.uint64(1)


def _scrambled(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Apply a pseudo-random bijection of 64-bit numbers."""
    values = (values ^ (values >> np.uint64(32))) * _GOLDEN
    values = (values ^ (values >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return values ^ (values >> np.uint64(32))
