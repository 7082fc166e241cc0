"""Storage, between studies, of students whose training crashed on this machine.

A crash is stored by architecture and its code, image shape, kind of device and version of torch. If one of them
changes, the student is tried again. The crashes are in one JSON file in the user's cache folder, which is replaced as a
whole. This module does not load timm, and loads torch only if the device is a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodistill.core.records import Params, stable_key
from autodistill.training.costs.cost_memory import processor, version_of
from autodistill.training.costs.family_code import family_code
from autodistill.training.costs.stored_rows import read_rows, write_rows

FILE = "crashes.json"


@dataclass(frozen=True)
class Crash:
    """A student whose worker processes crashed.

    Attributes:
        student: the architecture.
        how: how the last worker ended, e.g. ``killed by signal 11 (SIGSEGV)``.
    """

    student: Params
    how: str


class CrashMemory:
    """Stored crashes on images of one shape, on one kind of device.

    Args:
        folder: folder of the file.
        image_size: pixels per side of the students' input.
        channels: channels of the students' input.
        device: torch device string of the workers.
    """

    def __init__(self, folder: Path, *, image_size: int, channels: int, device: str) -> None:
        self._path = folder / FILE
        self._facts = {
            "image_size": image_size,
            "channels": channels,
            "device": _kind(device),
            "torch": version_of("torch"),
        }

    def known(self) -> list[Crash]:
        """Return the students that crashed under the same conditions, in the order of their crashes."""
        rows = read(self._path)
        return [Crash(row["student"], row["how"]) for key, row in rows.items() if key == self._key(row["student"])]

    def put(self, student: Params, how: str) -> None:
        """Store a crash; errors of writing are ignored, since they must not stop the search."""
        rows = read(self._path)
        rows[self._key(student)] = {"student": dict(student), "how": how, **self._facts}
        with contextlib.suppress(OSError):
            write_rows(self._path, rows, indent=1)

    def _key(self, student: Params) -> str:
        return stable_key([dict(student), family_code(str(student.get("family", ""))), self._facts])


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Read the rows of a file; an unreadable file and invalid rows are ignored."""
    return read_rows(path, _is_row)


def _is_row(row: Any) -> bool:
    return isinstance(row, Mapping) and isinstance(row.get("student"), dict) and isinstance(row.get("how"), str)


def _kind(device: str) -> str:
    """Return the name of the processor or the GPU."""
    if not device.startswith("cuda"):
        return str(processor())
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else device
