"""A study's trials as growing arrays; reading ten thousand stored trials costs little more than reading a hundred."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill.core.records import LATENCY
from autodistill.search.space import moves
from autodistill.search.space.encoding import Encoder
from autodistill.search.space.moves import Key, key
from autodistill.search.space.space import Space
from autodistill.search.storage.history import Outcome, StoredTrial, outcome

Floats = npt.NDArray[np.float64]


@dataclass
class Observations:
    """Measurements, one row per rung of each trial.

    Attributes:
        params: ``(n, columns)`` encoded parameters.
        raw: ``(n, objectives)`` metric values with known costs filled in; NaN if not measured.
        hints: ``(n, hints)`` known costs that are not objectives; NaN if unknown.
        epochs: ``(n,)`` epochs trained; NaN at the top rung.
        full: ``(n,)`` true for complete trials at the top rung.
        failed: ``(n,)`` true if the trial failed.
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
        """Return these observations followed by the others."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Observations(*(np.concatenate(pair) for pair in pairs))

    def ordered(self) -> Observations:
        """Return the observations by trial number, the order in which a resumed study reads them."""
        if (np.diff(self.owners) >= 0).all():
            return self
        rows = np.argsort(self.owners, kind="stable")
        return Observations(*(column[rows] for column in vars(self).values()))


@dataclass
class ObservationStore:
    """All trials of a study, read once each.

    Args:
        space: search space; parameters outside it, stored by other programs, are ignored.
        encoder: encoder of the parameters.
        names: objective names in the study's order.
        costs: function from parameter values to known costs.
        rungs: cumulative epochs of the rungs; empty to ignore lower rungs.
        hints: names of the known costs that are not objectives.

    Attributes:
        closed: ended trials with parameters, by number.
        open: trials that have not ended, by number.
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
    _noisy: dict[Key, list[int]] = field(default_factory=dict)
    _count: int = 0

    def update(self, trials: Sequence[StoredTrial]) -> list[Outcome]:
        """Read the new trials of a study.

        Args:
            trials: all trials of the study, in a stable order to which new trials are appended.

        Returns:
            Trials that have ended since the last call, and those that are running.
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
            late = first and trial.user_attrs.get("reason") == "TIME"  # refused in an earlier run, with less time left
            if seen.values and not late:
                self._keys[trial.number] = key(seen.values)
                self._proposed.add(self._keys[trial.number])
        if finished or self._done is None:
            rows = self._observe(finished)
            self._done = (rows if self._done is None else self._done.join(rows)).ordered()
        self._settle_latencies([trials[place] for place in places])
        running = self.running()
        self._seen = self._done.join(self._observe(running)) if running else self._done
        return [*finished, *running]

    def _settle_latencies(self, trials: Sequence[StoredTrial]) -> None:
        """Give ended trials with a noisy latency the one that a new trial of the same architecture has settled."""
        section = self.space.section("student")
        for trial in trials:
            o = self.closed.get(trial.number) or self.open.get(trial.number)
            if o is None or LATENCY not in o.costs:
                continue
            student = key({p.name: o.values[p.name] for p in section.parameters if p.name in o.values})
            if not trial.user_attrs.get("noisy"):
                for number in self._noisy.pop(student, ()):
                    self._replace_latency(number, o.costs[LATENCY])
            elif trial.number in self.closed:
                self._noisy.setdefault(student, []).append(trial.number)

    def _replace_latency(self, number: int, latency: float) -> None:
        assert self._done is not None
        old = self.closed[number]
        curve = tuple((epochs, {**values, LATENCY: latency}) for epochs, values in old.curve)
        final = {name: latency if name == LATENCY else value for name, value in old.final.items()}
        self.closed[number] = replace(old, curve=curve, costs={**old.costs, LATENCY: latency}, final=final)
        rows = self._done.owners == number
        for names, table in ((self.names, self._done.raw), (self.hints, self._done.hints)):
            for column in (names.index(LATENCY),) if LATENCY in names else ():
                table[rows, column] = latency

    def _own(self, o: Outcome) -> Outcome:
        """Keep only parameters of the space, in its order; keep none if one is missing or not a valid choice."""
        return replace(o, values=moves.within(self.space, o.values) or {})

    def __len__(self) -> int:
        """Number of trials that have parameters."""
        return len(self._keys)

    def keys(self) -> AbstractSet[Key]:
        """Return the keys of all candidates that were proposed."""
        return self._proposed

    def running(self) -> list[Outcome]:
        """Return the trials that have not ended and have parameters."""
        return [o for o in self.open.values() if o.values]

    def observations(self) -> Observations:
        """Return all measurements so far, including those of running trials."""
        assert self._seen is not None
        return self._seen

    def least_measured(self, columns: Sequence[int]) -> int:
        """Return the smallest number of trials with a measurement, over the objectives in ``columns``."""
        seen = self.observations()
        counts = [len(np.unique(seen.owners[np.isfinite(seen.raw[:, j]) & ~seen.failed])) for j in columns]
        return min(counts, default=len(self))

    def known(self, o: Outcome) -> dict[str, float]:
        """Return the known costs of a trial, from the cost function and its reports; reports take precedence."""
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
        """Yield ``(raw, epochs, full, failed)`` for each measured rung of a trial."""
        known = self.known(o)
        for epochs, metrics in o.curve if self.rungs else ():
            if epochs < self.rungs[-1]:
                yield [metrics.get(name, known.get(name, np.nan)) for name in self.names], epochs, False, False
        if o.kind == "complete":
            yield [o.final.get(name, np.nan) for name in self.names], np.nan, True, False
        if o.kind == "failed":
            yield [known.get(name, np.nan) for name in self.names], np.nan, False, True
