"""Which columns of a table fit into so many characters, and how wide each of them is.

Figures and single words are never broken: columns of text wrap between words, and where that is not enough the least
important columns are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = 2
"""Characters between two columns."""

EASY = 17
"""Characters of a column of text in which most rows take two lines; columns that can be spared make room for it."""


@dataclass(frozen=True)
class ColumnLayout:
    """How a table is printed.

    Attributes:
        widths: of each column that is shown, by its index.
        hidden: indices of the columns that are not shown.
    """

    widths: dict[int, int]
    hidden: tuple[int, ...]

    @property
    def total(self) -> int:
        """Width of the table."""
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
    """The layout of a table in ``width`` characters; wider where nothing more may be left out.

    Args:
        columns: their names.
        rows: cells.
        width: of the terminal.
        wrap: columns that may take several lines a row, broken between words.
        spare: columns that may be left out, the first one first, so that text is easy to read.
        last: likewise, but only where nothing would fit otherwise.
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
    """Share ``room`` characters among the columns, by what each of them lacks of ``wanted``."""
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
