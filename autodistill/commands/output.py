"""How commands speak: data on stdout, everything else on stderr, tables for people and JSON for programs."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodistill.terminal import clean, err

if TYPE_CHECKING:
    from autodistill.records import Objective

_PIPE_WIDTH = 200  # a table that is not for a terminal keeps its columns whole


def out() -> Console:
    """The console of tables (stdout)."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def say(message: str = "") -> None:
    """One line (or several) for people, on stderr, never wrapped: commands in it can be pasted."""
    err().print(Text(clean(message)), soft_wrap=True)


def print_json(value: Any) -> None:
    """Stable JSON on stdout: indented, keys in their order, numbers that are not finite as null."""
    sys.stdout.write(json.dumps(_finite(value), indent=2, allow_nan=False, default=list) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A plain table on stdout; columns named in ``right`` are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    out().print(table)


def number(value: float | None, unit: str = "") -> str:
    """A number for people: fractions with four digits, counts with thousands, times with three figures."""
    if value is None:
        return "-"
    if unit == "fraction":
        return f"{value:.4f}"
    if unit in ("count", "bytes"):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def values_of(values: Mapping[str, float], objectives: Sequence[Objective]) -> list[str]:
    """The objectives of a trial as cells."""
    return [number(values.get(o.name), o.unit) for o in objectives]


def command(*parts: object) -> str:
    """A command line that can be pasted into a shell."""
    return shlex.join(["autodistill", *(str(part) for part in parts)])


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
