"""How commands speak: data on stdout, everything else on stderr, tables for people and JSON for programs."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodistill.commands.console.column_widths import fit_columns
from autodistill.core.errors import UsageError
from autodistill.core.terminal import clean, err
from autodistill.core.wording import one_line

if TYPE_CHECKING:
    from autodistill.core.records import Objective

_PIPE_WIDTH = 200  # a table that is not for a terminal keeps its columns whole


def out() -> Console:
    """The console of tables (stdout)."""
    return Console(highlight=False, width=None if for_terminal() else _PIPE_WIDTH)


def for_terminal() -> bool:
    """Whether stdout is read by people on a terminal, with its width."""
    return sys.stdout.isatty()


def say(message: str = "") -> None:
    """One line (or several) for people, on stderr, never wrapped: commands in it can be pasted."""
    err().print(Text(clean(message)), soft_wrap=True)


def print_json(value: Any) -> None:
    """Stable JSON on stdout: indented, keys in their order, numbers that are not finite as null."""
    sys.stdout.write(json.dumps(_finite(value), indent=2, allow_nan=False, default=list) + "\n")


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    wrap: Sequence[str] | None = None,
    spare: Sequence[str] = (),
    last: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """A plain table on stdout; on a terminal that is too narrow for it, some columns are left out, named and returned.

    Args:
        columns: their names.
        rows: cells.
        right: columns of numbers.
        wrap: columns that may take several lines; by default all that are no numbers.
        spare: columns that may be left out, the first one first.
        last: columns to leave out only where nothing would fit otherwise; by default numbers, from the last on.
    """
    columns = [one_line(name) for name in columns]
    cells = [[one_line(cell) if index == 0 else clean(cell) for index, cell in enumerate(row)] for row in rows]
    shown_head = any(columns)
    wrapped = [i for i, name in enumerate(columns) if (name not in right if wrap is None else name in wrap)]
    numbers = [name for name in right if name not in columns[:2]][::-1]
    orders = [[columns.index(name) for name in order] for order in (spare, numbers if last is None else last)]
    console = out()
    narrow = for_terminal()  # what is no terminal gets everything
    layout = fit_columns(
        columns,
        cells,
        console.width,
        wrap=wrapped,
        spare=orders[0] if narrow else (),
        last=[i for i in orders[1] if i not in orders[0]] if narrow else (),
    )
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=shown_head)
    for index, width in layout.widths.items():
        name = columns[index]
        table.add_column(name, justify="right" if name in right else "left", overflow="fold", width=width)
    for row in cells:
        table.add_row(*(Text(row[index]) for index in layout.widths))
    console.width = max(console.width, layout.total)  # rather lines that the terminal breaks than broken figures
    console.print(table)
    hidden = tuple(columns[index] for index in layout.hidden)
    if hidden:
        say(f"not shown, too little width: {', '.join(hidden)}; a wider terminal or --json has them")
    return hidden


def number(value: float | None, unit: str = "") -> str:
    """A number for people: fractions with four digits, counts with thousands, times with three figures."""
    if value is None:
        return "-"
    if unit == "fraction":
        return f"{value:.4f}"
    if unit in ("count", "bytes"):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def parse_values(values: Mapping[str, float], objectives: Sequence[Objective]) -> list[str]:
    """The objectives of a trial as cells."""
    return [number(values.get(o.name), o.unit) for o in objectives]


def command(*parts: object) -> str:
    """A command line that can be pasted into a shell."""
    return shlex.join(["autodistill", *(str(part) for part in parts)])


def check_drawing(path: Path, endings: Sequence[str]) -> None:
    """Refuse a picture that cannot be drawn, before any work.

    Raises:
        UsageError: its ending is none of ``endings``, or its folder does not exist.
    """
    if path.suffix not in endings:
        raise UsageError(f"cannot draw into {path.name}: the ending {path.suffix!r} is none of {', '.join(endings)}.")
    check_file(path)


def check_file(path: Path) -> None:
    """Refuse a file that cannot be written because of where it would be.

    Raises:
        UsageError: its folder does not exist, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} of {path.name} does not exist; make it, or name another.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it.")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
