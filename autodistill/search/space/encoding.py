"""Encoding of candidates as numbers, the input of the surrogate: one group of columns per parameter.

Real numbers, integers and numeric choices keep their order on a unit scale (logarithmic if the range is). Other choices
are one-hot. An inactive conditional parameter has a neutral value, so that it makes no difference between two
candidates without it. Known costs and the fidelity are further groups.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autodistill.search.space.space import Space

Floats = npt.NDArray[np.float64]
Values = Mapping[str, Any]

_SIDE = math.sqrt(0.5)  # one-hot columns of this height have distance 1


@dataclass(frozen=True)
class Encoder:
    """Encoder of a space's parameters as columns.

    Attributes:
        names: parameter names, one group each.
        distributions: values of each parameter.
        starts: first column of each group; the last entry is the number of columns.
    """

    names: tuple[str, ...]
    distributions: tuple[BaseDistribution, ...]
    starts: tuple[int, ...]

    @staticmethod
    def of(space: Space) -> Encoder:
        """Build the encoder of a space; a name that occurs under several conditions has one group."""
        merged: dict[str, BaseDistribution] = {p.name: p.distribution for p in space.parameters}
        widths = [_width(d) for d in merged.values()]
        starts = tuple(int(start) for start in np.concatenate([[0], np.cumsum(widths)]))
        return Encoder(tuple(merged), tuple(merged.values()), starts)

    @property
    def groups(self) -> tuple[int, ...]:
        """Group number of every column."""
        return tuple(
            g for g, (a, b) in enumerate(zip(self.starts, self.starts[1:], strict=False)) for _ in range(b - a)
        )

    @functools.cached_property
    def shared(self) -> tuple[tuple[int, ...], ...]:
        """Columns of the same choice in parameters with the same list of choices (e.g. those of every edge)."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for g, d in enumerate(self.distributions):
            if isinstance(d, CategoricalDistribution) and not _ordered(d.choices):
                alike.setdefault(tuple(map(_hashable, d.choices)), []).append(self.starts[g])
        return tuple(
            tuple(start + i for start in starts)
            for choices, starts in alike.items()
            if len(starts) > 1
            for i in range(len(choices))
        )

    @functools.cached_property
    def _tables(self) -> tuple[dict[Any, Floats] | None, ...]:
        return tuple(_lookup(d) for d in self.distributions)

    def encode(self, candidates: Iterable[Values]) -> Floats:
        """Encode candidates as features ``(candidates, columns)``."""
        rows = list(candidates)
        out = np.zeros((len(rows), self.starts[-1]))
        for g, (name, d) in enumerate(zip(self.names, self.distributions, strict=True)):
            block = out[:, self.starts[g] : self.starts[g + 1]]
            block[:] = 0.0 if block.shape[1] > 1 else 0.5
            has = [i for i, row in enumerate(rows) if name in row]
            if not has:
                continue
            table = self._tables[g]
            if table is None:
                block[has, 0] = _unit(d, np.array([rows[i][name] for i in has], dtype=np.float64))
            else:
                block[has] = [table[_hashable(rows[i][name])] for i in has]
        return out


def log_scaled(values: npt.ArrayLike, low: float, high: float, log: bool) -> Floats:
    """Scale values to 0 at ``low`` and 1 at ``high``, on a logarithmic scale if ``log``."""
    array = np.asarray(values, dtype=np.float64)
    if log:
        array, low, high = np.log(np.maximum(array, 1e-300)), math.log(low), math.log(high)
    return (array - low) / ((high - low) or 1.0)


def _ordered(choices: Sequence[Any]) -> bool:
    numeric = all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in choices)
    return len(choices) == 2 or (numeric and len(choices) > 2)


def _width(d: BaseDistribution) -> int:
    if isinstance(d, CategoricalDistribution) and not _ordered(d.choices):
        return len(d.choices)
    return 1


def _lookup(d: BaseDistribution) -> dict[Any, Floats] | None:
    """Return the columns of every choice of a categorical parameter; ``None`` for numbers."""
    if not isinstance(d, CategoricalDistribution):
        return None
    if not _ordered(d.choices):
        return {_hashable(c): row for c, row in zip(d.choices, np.eye(len(d.choices)) * _SIDE, strict=True)}
    choices: list[Any] = list(d.choices)
    order = sorted(range(len(choices)), key=choices.__getitem__) if len(choices) > 2 else [0, 1]
    return {_hashable(d.choices[i]): np.array([rank / (len(order) - 1)]) for rank, i in enumerate(order)}


def _hashable(choice: Any) -> Any:
    # 1, 1.0 and True are equal as dictionary keys, but are three choices
    return (type(choice).__name__, choice)


def _unit(d: BaseDistribution, values: Floats) -> Floats:
    assert isinstance(d, (IntDistribution, FloatDistribution))
    if d.low == d.high:
        return np.full_like(values, 0.5)
    return log_scaled(values, d.low, d.high, d.log)
