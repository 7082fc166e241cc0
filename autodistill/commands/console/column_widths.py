"""Layout of a table in a given width: which columns are shown, and how wide each is.

Numbers and single words are never broken. Text columns wrap between words; if that is not enough, the least important
columns are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = 2
"""Characters between two columns."""

EASY = 17
"""Width in characters at which most cells of a text column take at most two lines.

Columns that may be spared are left out to reach it."""


@dataclass(frozen=True)
class ColumnLayout:
    """Layout of a table.

    Attributes:
        widths: Column index to width in characters, for the columns that are shown.
        hidden: Indices of the columns that are not shown.
    """

    widths: dict[int, int]
    hidden: tuple[int, ...]

    @property
    def total(self) -> int:
        """Width of the table in characters."""
        return sum(self.widths.values()) + GAP * (len(self.widths) - 1)


def fit_columns(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    wrap: Collection[int],
    spare: Sequence[int],
    last: Sequence[int],
) -> ColumnLayout:
    """Lay out a table in ``width`` characters.

    Args:
        columns: Names of the columns.
        rows: Cells, one list per row.
        width: Width of the terminal in characters.
        wrap: Indices of columns that may take several lines per row, broken between words.
        spare: Indices of columns that may be left out, in this order, to keep text easy to read.
        last: Indices of columns that may be left out, in this order, only if the table does not fit otherwise.

    Returns:
        The layout. It is wider than ``width`` if no further column may be left out.
    """
    cells = [[name, *(row[i] for row in rows)] for i, name in enumerate(columns)]
    full = [max(map(_lines, column)) for column in cells]
    least = [max(map(_word, column)) if i in wrap else full[i] for i, column in enumerate(cells)]
    easy = [min(full[i], max(least[i], EASY)) for i in range(len(columns))]
    shown = list(range(len(columns)))
    for wanted, order in ((easy, spare), (least, last)):
        for index in order:
            if _total(wanted, shown) > width:
                shown.remove(index)
    widths = {i: least[i] for i in shown}
    for wanted in (easy, full):
        _widen(widths, wanted, width - sum(widths.values()) - GAP * (len(shown) - 1))
    return ColumnLayout(widths, tuple(i for i in range(len(columns)) if i not in shown))


def _widen(widths: dict[int, int], wanted: Sequence[int], room: int) -> None:
    """Distribute ``room`` characters among the columns, in proportion to what each lacks of its ``wanted`` width."""
    lacks = {i: wanted[i] - width for i, width in widths.items()}
    whole = sum(lacks.values())
    for i, lack in lacks.items():
        widths[i] += min(lack, max(0, room) * lack // whole) if whole else 0


def _total(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[i] for i in shown) + GAP * (len(shown) - 1)


def _lines(cell: str) -> int:
    return max(map(cell_len, cell.split("\n")))


def _word(cell: str) -> int:
    return max(map(cell_len, cell.split()), default=0)
