"""Latency on targets other than this machine: a table of measurements, or a command that measures an ONNX file.

Neither takes the measurement lock, because the models do not run on this machine.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autodistill.core.errors import InfeasibleError, UsageError, UserCodeError
from autodistill.core.records import LATENCY, LatencyTarget, Params
from autodistill.core.scratch import scratch_folder
from autodistill.training.deployed.form import deploy
from autodistill.training.deployed.runtimes import to_onnx
from autodistill.training.students import build as students

_OUTPUT_LENGTH = 300  # characters of a command's output that a message repeats


def is_elsewhere(target: LatencyTarget) -> bool:
    """Return whether latency comes from a table or a command.

    Raises:
        UsageError: Both are given, or the command has no placeholder ``{onnx}``.
    """
    if target.command is not None and target.table is not None:
        raise UsageError("latency.command and latency.table are both given; keep one.")
    if target.command is not None and "{onnx}" not in target.command:
        raise UsageError(f"latency.command {target.command!r} has no {{onnx}}; write it where the file's path belongs.")
    return target.command is not None or target.table is not None


def latency_elsewhere(
    student: Params, model: nn.Module, target: LatencyTarget, *, image_size: int, channels: int
) -> float:
    """Return the milliseconds per batch of a student on a target other than this machine.

    Args:
        student: family and parameters.
        model: the network built from them.
        target: latency target with a table or a command.
        image_size: pixels per side of the input.
        channels: channels of the input.

    Raises:
        InfeasibleError: The table does not contain the student, or the network cannot be exported to ONNX.
        UsageError: The table cannot be read.
        UserCodeError: The command fails, takes too long or does not print a latency.
    """
    if target.table is not None:
        return in_table(student, Path(target.table))
    with scratch_folder("onnx") as folder:
        path = Path(folder) / "student.onnx"
        images = torch.zeros(target.batch, channels, image_size, image_size)
        path.write_bytes(to_onnx(deploy(model, image_size=image_size, channels=channels), images))
        return latency_of_file(target, path)


def latency_of_file(target: LatencyTarget, path: Path) -> float:
    """Return the milliseconds per batch of an ONNX file, measured by the target's command.

    Raises:
        UsageError: The command cannot be split into words.
        UserCodeError: The command fails, takes too long or does not print a latency.
    """
    named = f"latency.command {target.command!r}"
    try:
        parts = [part.replace("{onnx}", str(path)) for part in shlex.split(target.command or "")]
    except ValueError as error:
        raise UsageError(f"{named} cannot be split into words: {error}; close its quotes.") from None
    try:
        child = subprocess.Popen(  # without a shell, and in a new process group, so that its children can be ended too
            parts, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise UserCodeError(f"{named} cannot be started: {error.strerror}: {parts[0]!r}.") from error
    try:
        output, errors = child.communicate(timeout=target.timeout_s)
    except BaseException as stop:  # also KeyboardInterrupt: Ctrl-C does not reach another process group
        _end_group(child)
        if not isinstance(stop, subprocess.TimeoutExpired):
            raise
        raise UserCodeError(
            f"{named} ran longer than latency.timeout_s = {target.timeout_s:g} seconds; fix it or raise the limit."
        ) from None
    if child.returncode != 0:
        raise UserCodeError(f"{named} ended with exit code {child.returncode}: {_end(errors or output)}")
    return _milliseconds(output, named)


def _end_group(child: subprocess.Popen[str]) -> None:
    """Kill a command and all processes of its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
        child.communicate(timeout=5)  # closes the pipes; a process that left the group may keep them open


def _milliseconds(text: str, named: str) -> float:
    """Return the number in the last line of a command's output: ``{"latency_ms": 1.5}`` or ``1.5``."""
    lines = text.strip().splitlines()
    try:
        value = json.loads(lines[-1]) if lines else None
    except ValueError:
        value = None
    if isinstance(value, Mapping):
        value = value.get(LATENCY)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        output = _end(text) or "nothing"
        raise UserCodeError(
            f'{named} must print JSON such as {{"latency_ms": 1.5}} in its last line; it printed: {output}'
        )
    return float(value)


def _end(text: str) -> str:
    return text.strip()[-_OUTPUT_LENGTH:]


def in_table(student: Params, path: Path) -> float:
    """Return the latency in the first row of a table that matches a student; empty cells match every value.

    Raises:
        InfeasibleError: No row matches.
        UsageError: The table cannot be read, or the latency is not a number above 0.
    """
    filled = {key: str(value).lower() for key, value in students.validate(student).items()}
    for number, (settings, latency) in enumerate(_rows(path), 1):
        if all(filled.get(key) == value for key, value in settings.items()):
            try:
                found = float(latency)
            except (TypeError, ValueError):
                found = math.nan
            if not (math.isfinite(found) and found > 0):
                raise UsageError(
                    f"{path}, row {number}: {LATENCY} is {latency!r}; it must be a number of milliseconds."
                )
            return found
    raise InfeasibleError(f"{students.describe(student)} is not in {path}, which has the latencies of this target.")


def _rows(path: Path) -> list[tuple[dict[str, str], Any]]:
    """Return settings and latency of every row, with cells as lower-case text, in CSV and JSON files alike."""
    rows: list[dict[str, Any]]
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            rows = [{**row["student"], LATENCY: row[LATENCY]} for row in json.loads(text)]
        else:
            rows = list(csv.DictReader(text.splitlines()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"latency.table {path} cannot be read: {error}.") from error
    if not rows or LATENCY not in rows[0]:
        raise UsageError(f"latency.table {path} needs rows with the settings of a student and {LATENCY}.")
    return [
        (
            {key: str(cell).lower() for key, cell in row.items() if key != LATENCY and cell not in ("", None)},
            row[LATENCY],
        )
        for row in rows
    ]
