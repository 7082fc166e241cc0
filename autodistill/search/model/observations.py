"""A study's trials as arrays that only grow: ten thousand stored trials cost hardly more than a hundred."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill.search.space import moves as proposals
from autodistill.search.space.encoding import Encoder
from autodistill.search.space.moves import Key, key
from autodistill.search.space.space import Space
from autodistill.search.storage.history import Outcome, StoredTrial, outcome

Floats = npt.NDArray[np.float64]


@dataclass
class Observations:
    """What was measured, one row for each rung of each trial.

    Attributes:
        params: ``(n, columns)`` encoded parameters.
        raw: ``(n, objectives)`` metric values; known costs are filled in; NaN where nothing was measured.
        hints: ``(n, hints)`` known costs that are no objectives; NaN where they are not known.
        epochs: ``(n,)`` epochs trained; NaN at the top.
        full: ``(n,)`` true for complete trials at the top rung.
        failed: ``(n,)`` true where the trial failed.
        owners: ``(n,)`` trial numbers.
    """

    params: Floats
    raw: Floats
    hints: Floats
    epochs: Floats
    full: npt.NDArray[np.bool_]
    failed: npt.NDArray[np.bool_]
    owners: npt.NDArray[np.int64]

    def join(self, other: Observations) -> Observations:
        """These, then the others."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Observations(*(np.concatenate(pair) for pair in pairs))


@dataclass
class ObservationStore:
    """All trials of a study.

    Args:
        space: what its own parameters are; of trials that others have stored, those that do not belong are left out.
        encoder: parameters to features.
        names: objective names in the study's order.
        costs: known costs of parameter values.
        rungs: cumulative epochs of the rungs; empty when lower rungs are not to be read.
        hints: names of the known costs that are no objectives.
    """

    space: Space
    encoder: Encoder
    names: tuple[str, ...]
    costs: Callable[[Mapping[str, Any]], Mapping[str, float] | None]
    rungs: tuple[float, ...]
    hints: tuple[str, ...] = ()
    closed: dict[int, Outcome] = field(default_factory=dict)
    open: dict[int, Outcome] = field(default_factory=dict)
    _keys: dict[int, Key] = field(default_factory=dict)
    _proposed: set[Key] = field(default_factory=set)
    _done: Observations | None = None
    _seen: Observations | None = None
    _unsettled: list[int] = field(default_factory=list)
    _count: int = 0

    def update(self, trials: Sequence[StoredTrial]) -> list[Outcome]:
        """Read what is new in a study.

        Args:
            trials: all of its trials; one keeps its place from call to call, and new ones come after it.

        Returns:
            The trials that were closed since, and those that are under way.
        """
        first = self._done is None
        places = [*self._unsettled, *range(self._count, len(trials))]
        self.open, self._unsettled, self._count, finished = {}, [], len(trials), []
        for place in places:
            trial = trials[place]
            seen = self._own(outcome(trial, self.names))
            if seen.kind == "running":
                self.open[trial.number] = seen
                self._unsettled.append(place)
            elif seen.values:
                self.closed[trial.number] = seen
                finished.append(seen)
            late = first and trial.user_attrs.get("reason") == "TIME"  # refused by an earlier call, with less time
            if seen.values and not late:
                self._keys[trial.number] = key(seen.values)
                self._proposed.add(self._keys[trial.number])
        if finished or self._done is None:
            rows = self._observe(finished)
            self._done = rows if self._done is None else self._done.join(rows)
        running = self.running()
        self._seen = self._done.join(self._observe(running)) if running else self._done
        return [*finished, *running]

    def _own(self, o: Outcome) -> Outcome:
        """With the parameters of the space alone, in its order; with none where one is missing or not a choice."""
        return replace(o, values=proposals.within(self.space, o.values) or {})

    def __len__(self) -> int:
        """Trials that have parameters."""
        return len(self._keys)

    def keys(self) -> AbstractSet[Key]:
        """Keys of all candidates that were proposed."""
        return self._proposed

    def running(self) -> list[Outcome]:
        """Trials that are not closed and have parameters."""
        return [o for o in self.open.values() if o.values]

    def observations(self) -> Observations:
        """Everything measured so far, running trials included."""
        assert self._seen is not None
        return self._seen

    def witnesses(self, columns: Sequence[int]) -> int:
        """How many trials, at least, have measured each of these objectives."""
        seen = self.observations()
        counts = [len(np.unique(seen.owners[np.isfinite(seen.raw[:, j]) & ~seen.failed])) for j in columns]
        return min(counts, default=len(self))

    def known(self, o: Outcome) -> dict[str, float]:
        """Known costs of a trial: from the cost function, or as reported."""
        return {**(self.costs(o.values) or {}), **o.costs, **o.final}

    def _observe(self, outcomes: Sequence[Outcome]) -> Observations:
        rows = [(i, *row) for i, o in enumerate(outcomes) for row in self._rows(o)]
        which = [i for i, *_ in rows]
        known = [self.known(o) for o in outcomes]
        hints = [[costs.get(name, np.nan) for name in self.hints] for costs in known]
        return Observations(
            self.encoder.encode([o.values for o in outcomes])[which],
            np.array([raw for _, raw, *_ in rows], dtype=np.float64).reshape(len(rows), len(self.names)),
            np.array(hints, dtype=np.float64).reshape(len(outcomes), len(self.hints))[which],
            np.array([epochs for _, _, epochs, *_ in rows], dtype=np.float64),
            np.array([full for *_, full, _ in rows], dtype=bool),
            np.array([failed for *_, failed in rows], dtype=bool),
            np.array([outcomes[i].number for i in which], dtype=np.int64),
        )

    def _rows(self, o: Outcome) -> Iterator[tuple[list[float], float, bool, bool]]:
        """``(raw, epochs, full, failed)``."""
        known = self.known(o)
        for epochs, metrics in o.curve if self.rungs else ():
            if epochs < self.rungs[-1]:
                yield [metrics.get(name, known.get(name, np.nan)) for name in self.names], epochs, False, False
        if o.kind == "complete":
            yield [o.final.get(name, np.nan) for name in self.names], np.nan, True, False
        if o.kind == "failed":
            yield [known.get(name, np.nan) for name in self.names], np.nan, False, True
