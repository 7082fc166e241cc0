"""Storage of known costs between studies, by architecture and its code, image shape, latency target, machine, versions.

The costs are in one JSON file in the user's cache folder (``AUTODISTILL_CACHE``, else ``XDG_CACHE_HOME``, else
``~/.cache``). A write merges the rows of other processes and replaces the whole file. Two simultaneous writes lose at
most each other's newest rows, which are measured again. This module loads neither torch nor timm, so a survey whose
costs are all stored needs neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autodistill.core.records import LATENCY, LatencyTarget, Params, stable_key
from autodistill.training.costs.family_code import family_code
from autodistill.training.costs.stored_rows import read_rows, write_rows
from autodistill.training.runtime.cache_folder import cache_folder as cache_folder
from autodistill.training.students.resolution import RESOLUTION, architecture, own_shape

FEATURES = ("params", "macs", "activations", "operations")
"""Counted metrics that latency is predicted from; one pass counts them all."""
PROTOCOL = 3
"""Version of the latency protocol. Raise it when the protocol changes, so that stored latencies are measured again."""
_STORED = {"onnx_bytes": "onnx_bytes:2"}
"""Metric to its name in the file, for metrics whose definition changed, so that stored values are counted again."""
_FILE = "costs.json"


def machine(target: LatencyTarget | None = None) -> str:
    """Return a key of the machine that a latency depends on: processor, cores, operating system, versions.

    Args:
        target: latency target whose GPU and runtime version are included; by default eager PyTorch on the CPU.
    """
    facts = [
        platform.machine(),
        processor(),
        os.cpu_count(),
        platform.system(),
        version_of("torch"),
        version_of("timm"),
    ]
    if target is not None and target.device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():
            facts.append(torch.cuda.get_device_name(target.device))
    if target is not None and (target.runtime == "onnxruntime" or target.precision == "int8"):
        facts += [version_of("onnxruntime"), version_of("onnxruntime-gpu")]
    return stable_key(facts)


@cache
def version_of(package: str) -> str:
    """Return the version of an installed package, or an empty text if it is not installed."""
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return ""


class CostMemory:
    """Stored costs by key.

    Args:
        folder: folder of the file; ``None`` keeps the costs in this object only.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / _FILE
        self._rows: dict[str, dict[str, float]] = {}
        self._codes: dict[str, str] = {}
        self._changed = False
        if self._path is not None:
            self._rows = read_rows(self._path, _is_row)

    def key(self, student: Params, shape: Mapping[str, int], num_classes: int) -> str:
        """Return the key of a student's counted costs.

        It includes the code of the family, so two projects with families of the same name do not share costs. A student
        that sees smaller images has the costs of one on images of that size.
        """
        family = str(student.get("family", ""))
        if family not in self._codes:
            self._codes[family] = family_code(family)
        versions = [version_of(package) for package in ("autodistill-search", "torch", "timm")]
        seen = own_shape(student, shape) if RESOLUTION in student else dict(shape)
        return stable_key([architecture(student), self._codes[family], seen, num_classes, versions])

    def get(self, key: str, counted: Sequence[str], target: LatencyTarget | None) -> dict[str, float] | None:
        """Return the costs of a student, or ``None`` if one of them is not stored.

        Args:
            key: key of the student (:meth:`key`).
            counted: counted metrics to return.
            target: latency target; ``None`` returns no latency.
        """
        row = self._rows.get(key, {})
        stored = {name: _STORED.get(name, name) for name in counted}
        out = {name: row[place] for name, place in stored.items() if place in row}
        if len(out) < len(counted):
            return None
        if target is not None:
            name = self._latency(target)
            if name not in row:
                return None
            out[LATENCY] = row[name]
        return out

    def put(self, key: str, costs: Mapping[str, float], target: LatencyTarget) -> None:
        """Add the costs of a student; call :meth:`save` to write them."""
        row = {_STORED.get(name, name): value for name, value in costs.items() if name != LATENCY}
        if LATENCY in costs:
            row[self._latency(target)] = costs[LATENCY]
        old = self._rows.get(key, {})
        if any(old.get(name) != value for name, value in row.items()):
            self._rows[key] = {**old, **row}
            self._changed = True

    def refresh(self) -> None:
        """Read the rows that other workers and studies have written since."""
        for key, row in read_rows(self._path, _is_row).items() if self._path is not None else ():
            self._rows[key] = {**row, **self._rows.get(key, {})}

    def save(self) -> None:
        """Write the file if there are new costs and a folder."""
        if self._path is None or not self._changed:
            return
        with contextlib.suppress(OSError):  # an unwritable cache must not stop the search
            self.refresh()
            write_rows(self._path, self._rows)
            self._changed = False

    def _latency(self, target: LatencyTarget) -> str:
        table = ""
        if target.table is not None:  # an edited table has a different key
            with contextlib.suppress(OSError):
                table = ":" + hashlib.sha256(Path(target.table).read_bytes()).hexdigest()[:16]
        return f"latency:{PROTOCOL}:{target.key()}:{machine(target)}{table}"


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in row.values()
    )


@cache
def processor() -> Any:
    """Return the name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
