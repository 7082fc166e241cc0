"""Output of the commands: data on stdout, messages on stderr; tables for people, JSON for programs."""

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

_PIPE_WIDTH = 200  # width in characters of tables that do not go to a terminal


def out() -> Console:
    """Return the console for tables (stdout)."""
    return Console(highlight=False, width=None if for_terminal() else _PIPE_WIDTH)


def for_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def say(message: str = "") -> None:
    """Print a message on stderr without wrapping it, so that commands in it can be copied."""
    err().print(Text(clean(message)), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print JSON on stdout: indented, keys in their order, numbers that are not finite as ``null``."""
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
    """Print a plain table on stdout; on a narrow terminal, leave out some columns and list them on stderr.

    Args:
        columns: Names of the columns.
        rows: Cells, one list per row.
        right: Columns of numbers, aligned to the right.
        wrap: Columns that may take several lines per row. Default: all that are not in ``right``.
        spare: Columns that may be left out first, in this order.
        last: Columns that may be left out only if the table does not fit otherwise. Default: numbers, the last first.

    Returns:
        Names of the columns that were left out.
    """
    columns = [one_line(name) for name in columns]
    cells = [[one_line(cell) if index == 0 else clean(cell) for index, cell in enumerate(row)] for row in rows]
    shown_head = any(columns)
    wrapped = [i for i, name in enumerate(columns) if (name not in right if wrap is None else name in wrap)]
    numbers = [name for name in right if name not in columns[:2]][::-1]
    orders = [[columns.index(name) for name in order] for order in (spare, numbers if last is None else last)]
    console = out()
    narrow = for_terminal()  # files and pipes get all columns
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
    console.width = max(console.width, layout.total)  # let the terminal break lines rather than numbers
    console.print(table)
    hidden = tuple(columns[index] for index in layout.hidden)
    if hidden:
        say(f"not shown for lack of width: {', '.join(hidden)}; use a wider terminal or --json")
    return hidden


def number(value: float | None, unit: str = "") -> str:
    """Format a number: fractions with four decimals, counts with separators, others with three significant digits."""
    if value is None:
        return "-"
    if unit == "fraction":
        return f"{value:.4f}"
    if unit in ("count", "bytes"):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def parse_values(values: Mapping[str, float], objectives: Sequence[Objective]) -> list[str]:
    """Format the objectives of a trial as table cells."""
    return [number(values.get(o.name), o.unit) for o in objectives]


def command(*parts: object) -> str:
    """Return an ``autodistill`` command line, quoted for a shell."""
    return shlex.join(["autodistill", *(str(part) for part in parts)])


def check_drawing(path: Path, endings: Sequence[str]) -> None:
    """Check, before any work, that a figure can be written to ``path``.

    Raises:
        UsageError: Its ending is not one of ``endings``, or its folder does not exist.
    """
    if path.suffix not in endings:
        raise UsageError(f"cannot draw {path.name}: got the ending {path.suffix!r}; allowed: {', '.join(endings)}.")
    check_file(path)


def check_file(path: Path) -> None:
    """Check that a file can be written at ``path``.

    Raises:
        UsageError: Its folder does not exist, or ``path`` is a folder.
    """
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} of {path.name} does not exist; create it, or choose another.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file.")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
