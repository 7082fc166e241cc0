"""Reported losses of all trials by rung, as growing arrays, for the rung rules.

Losses are those of :func:`autodistill.search.objectives.values_as_losses.axis_losses`: smaller is better; counts and
times are logarithms.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autodistill.core.records import Objective
from autodistill.search.objectives.values_as_losses import axis_losses

Floats = npt.NDArray[np.float64]


class _Rows:
    """A growing ``(trials, objectives)`` array, sorted by trial number: a resumed study reads it in the same order."""

    def __init__(self, columns: int) -> None:
        self.numbers: list[int] = []
        self._data = np.empty((16, columns))

    @property
    def losses(self) -> Floats:
        return self._data[: len(self.numbers)]

    def add(self, number: int, row: Floats) -> None:
        if len(self.numbers) == len(self._data):
            self._data = np.concatenate([self._data, np.empty_like(self._data)])
        place = bisect.bisect_right(self.numbers, number)
        self._data[place + 1 : len(self.numbers) + 1] = self._data[place : len(self.numbers)].copy()
        self._data[place] = row
        self.numbers.insert(place, number)

    def find(self, number: int) -> int | None:
        """Return the place of a trial's last report."""
        place = bisect.bisect_right(self.numbers, number) - 1
        return place if place >= 0 and self.numbers[place] == number else None


class LossesByRung:
    """Losses of all trials by rung.

    Args:
        objectives: objectives of the study, in order.
        top: number of the top rung.
    """

    def __init__(self, objectives: Sequence[Objective], top: int) -> None:
        self._objectives, self._top = tuple(objectives), top
        self._rungs: dict[int, _Rows] = {}
        self._final: dict[int, Floats] = {}

    def add(self, number: int, rung: int, values: Mapping[str, float]) -> None:
        """Add a report.

        Args:
            number: number of the trial.
            rung: rung of the report, at least 1.
            values: known costs and reported metrics; a report without one of the objectives is ignored.
        """
        if any(o.name not in values for o in self._objectives):
            return
        row = axis_losses(self._objectives, [values])[0]
        self._rungs.setdefault(rung, _Rows(len(self._objectives))).add(number, row)
        if rung == self._top:
            self._final[number] = row

    @property
    def finished(self) -> int:
        """Number of trials that have reported the top rung."""
        return len(self._final)

    def unbeaten(self, number: int, rung: int) -> bool:
        """Return whether no other report at this rung dominates the trial's."""
        row = self.row(rung, number)
        if row is None:
            return False
        _, losses = self.at(rung)
        return not bool(((losses <= row).all(axis=1) & (losses < row).any(axis=1)).any())

    def at(self, rung: int, newest: int | None = None) -> tuple[list[int], Floats]:
        """Return numbers and losses ``(trials, objectives)`` at ``rung`` by number, or of the ``newest`` trials."""
        rows = self._rungs.get(rung) or _Rows(len(self._objectives))
        start = 0 if newest is None else max(0, len(rows.numbers) - newest)
        return rows.numbers[start:], rows.losses[start:]

    def row(self, rung: int, number: int) -> Floats | None:
        """Return the losses of one trial at a rung; ``None`` if it has not reported there."""
        rows = self._rungs.get(rung)
        place = None if rows is None else rows.find(number)
        return None if rows is None or place is None else rows.losses[place]

    def final(self, numbers: Sequence[int]) -> Floats:
        """Return losses at the top rung ``(trials, objectives)``; NaN rows for trials that have not reached it."""
        missing = np.full(len(self._objectives), np.nan)
        rows = [self._final.get(number, missing) for number in numbers]
        return np.array(rows, dtype=float).reshape(len(rows), len(self._objectives))
