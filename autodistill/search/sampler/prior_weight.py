"""The weight of a space's priors in the ranking of new candidates: a factor on the gain that fades with more trials.

πBO (Hvarfner et al., ICLR 2022) multiplies the acquisition function by the prior to a falling power, so that a wrong
prior delays a search but does not spoil it. Here the factor is 1 for the likeliest values, and only parameters with a
prior count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill.search.space.encoding import Encoder
from autodistill.search.space.priors import DECAY, Centre, Weights
from autodistill.search.space.space import Space

Floats = npt.NDArray[np.float64]


class PriorWeight:
    """Factors on the gain of candidates, from the priors of their space.

    Args:
        space: search space whose parameters may have priors.
        encoder: encoder of its parameters.
    """

    def __init__(self, space: Space, encoder: Encoder) -> None:
        known = {p.name: p for p in space.parameters if p.prior is not None}
        self._weights = {n: (p.distribution, p.prior) for n, p in known.items() if isinstance(p.prior, Weights)}
        self._centres = {n: (p.distribution, p.prior) for n, p in known.items() if isinstance(p.prior, Centre)}
        groups = [(encoder.starts[g], name) for g, name in enumerate(encoder.names)]
        self._columns = {name: start for start, name in groups if name in self._centres}
        self.drawn = np.array([encoder.names[g] in known for g in encoder.groups], dtype=bool)
        """Mask ``(columns,)`` of the feature columns of parameters with a prior."""

    @property
    def known(self) -> bool:
        """Whether any parameter has a prior."""
        return bool(self._weights or self._centres)

    def of(self, values: Sequence[Mapping[str, Any]], trials: int) -> Floats:
        """Return the factors ``(candidates,)`` after this number of trials, above 0 and at most 1."""
        logs = self._choices(values)
        for name, (d, prior) in self._centres.items():
            for row, own in enumerate(values):
                if name in own:
                    logs[row] += prior.log_share(d, own[name])
        return _factor(logs, trials)

    def moved(
        self, values: Sequence[Mapping[str, Any]], params: Floats, rows: npt.NDArray[np.int64], trials: int
    ) -> Floats:
        """Return the factors of candidates whose numbers were moved.

        Args:
            values: candidates before the moves.
            params: encoded parameters ``(n, columns)`` with the moved numbers.
            rows: row in ``values`` of each, ``(n,)``.
            trials: number of trials so far.
        """
        logs = self._choices(values)[rows]
        for name, (_, prior) in self._centres.items():
            active = np.array([name in own for own in values], dtype=bool)[rows]
            logs += np.where(active, prior.log_at(params[:, self._columns[name]]), 0.0)
        return _factor(logs, trials)

    def _choices(self, values: Sequence[Mapping[str, Any]]) -> Floats:
        logs = np.zeros(len(values))
        for name, (d, prior) in self._weights.items():
            for row, own in enumerate(values):
                if name in own:
                    logs[row] += prior.log_share(d, own[name])
        return logs


def _factor(logs: Floats, trials: int) -> Floats:
    factor: Floats = np.exp(logs * (DECAY / max(trials, 1)))
    return factor
