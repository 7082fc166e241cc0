"""The results of trials as text beside the database: one line for each end or pause of a trial.

Only ``autodistill repair`` and the check for lost trials read it; a study itself reads its database alone. A line holds
a checksum, so that a torn one is recognised; the last line of a trial counts.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = "results.jsonl"
_TAIL = 1 << 20  # bytes at the end of the file in which the last complete line is looked for


class ResultsFile:
    """Writer of a study's results file; the holder of the study's lock has one.

    Args:
        directory: folder of the study.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / RESULTS
        self._torn: bool | None = None

    def add(self, facts: Mapping[str, Any]) -> None:
        """Append the facts of a trial as one line.

        Raises:
            OSError: the disk is full or not writable.
        """
        if self._torn is None:
            self._torn = _is_torn(self.path)
        body = json.dumps(facts, separators=(",", ":"))
        line = f"{zlib.crc32(body.encode()):08x} {body}\n".encode()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            data = b"\n" + line if self._torn else line
            self._torn = True
            while data:
                data = data[os.write(handle, data) :]
            self._torn = False
        finally:
            os.close(handle)


def read_results(directory: Path) -> tuple[dict[int, dict[str, Any]], int]:
    """Return the last facts of each trial, by number, and the number of damaged lines."""
    path, found, damaged = directory / RESULTS, dict[int, dict[str, Any]](), 0
    if not path.is_file():
        return found, 0
    with path.open("rb") as file:
        for line in file:
            facts = _facts(line)
            if facts is not None:
                found[facts["number"]] = facts
            elif line.strip():
                damaged += 1
    return found, damaged


def last_results(directory: Path) -> Iterator[dict[str, Any]]:
    """Yield the facts of the last complete lines, newest first."""
    path = directory / RESULTS
    if not path.is_file():
        return
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        lines = file.read().split(b"\n")
    for line in reversed(lines):
        facts = _facts(line)
        if facts is not None:
            yield facts


def _facts(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds; ``None`` if it is damaged."""
    checksum, _, body = line.strip().partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(body):
            return None
        facts = json.loads(body)
        return facts if isinstance(facts, dict) and isinstance(facts.get("number"), int) else None
    except ValueError:
        return None


def _is_torn(path: Path) -> bool:
    """Return whether the file ends within a line, because its writer died or the disk was full."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
