"""New candidates for the front sampler: those that may be proposed, with their known costs.

They are a fixed random sample of the space (which also sets the scales of the known costs), fresh draws, moves around
the front and mixtures of its members, then moves around the most promising of all these. The caller ranks them.

With a surveyed pool, the sample and most draws come from the pool. Moves, mixtures and the other draws lead beyond it,
to students whose costs must still be counted. Counting takes time, so each proposal counts only a few new students.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill.search.model.model_input import CandidateBatch
from autodistill.search.sampler.known_costs import KnownCosts, Settings
from autodistill.search.space import moves
from autodistill.search.space.encoding import Encoder

Floats = npt.NDArray[np.float64]
Values = dict[str, Any]

REFERENCE_SAMPLE = 600
DRAWS, FAR, MIXTURES, PARENTS = 40, 10, 40, 12
"""Numbers of draws, of draws beyond a surveyed pool, of mixtures, and of front members that are moved and mixed."""

CLIMBS, CLIMBERS = 3, 5
"""Rounds of moves around the most promising candidates, and the number of these candidates."""

BEYOND, BEYOND_CLIMB = 6, 3
"""Students outside a surveyed pool whose costs are counted per proposal: at first, and in each climb."""

LONGEST = 0.5
"""Seconds after which no further new student is counted, at first and in each climb: some counts take long."""

MOST_COUNTED = 500
"""Students beyond the pool that are remembered as counted."""

PATIENCE, SEARCHED = 100, 30.0
"""Rounds of 40 draws after which a space that cannot be enumerated counts as exhausted, and the most seconds for which
students of any space are counted to find one that may be proposed."""


class CandidateSource:
    """Source of feasible candidates of a space.

    Args:
        known_costs: known costs of students, and which of them may be proposed.
        encoder: encoder of the parameters.
        rng: random numbers of the draws; the reference sample has its own.

    Attributes:
        rng: the random numbers; set anew for each decision.
        counted: students beyond the pool whose costs were counted by proposals, oldest first; these cost no time again.
    """

    def __init__(self, known_costs: KnownCosts, encoder: Encoder, rng: np.random.Generator) -> None:
        self._known_costs, self._encoder = known_costs, encoder
        self._space = known_costs.space
        self._free = moves.free_numbers(self._space).keys()  # left to the local search, which moves all at once
        self._reference: CandidateBatch | None = None
        self.counted: dict[Settings, None] = {}
        self._allowance, self._counting_seconds = (
            math.inf,
            -math.inf,
        )  # students and seconds; no limits outside a proposal
        self.rng = rng

    def forget(self) -> None:
        """Discard the reference sample, because the known costs have changed."""
        self._reference = None

    def leave_out_forbidden(self) -> None:
        """Remove forbidden students from the reference sample; the rest, and thus the scales, stay."""
        if self._reference is not None:
            allowed = [self._known_costs.costs(values) is not None for values in self._reference.values]
            self._reference = self._reference.take([i for i, kept in enumerate(allowed) if kept])

    def reference(self) -> CandidateBatch:
        """Return random feasible candidates; the same after a resume, so that scales do not change."""
        if self._reference is None:
            rng = np.random.default_rng(0)
            drawn = (self._known_costs.draw(rng) for _ in range(REFERENCE_SAMPLE))
            self._reference = self.feasible(moves.unique(drawn, set()))
        return self._reference

    def feasible(self, candidates: Mapping[moves.Key, Values]) -> CandidateBatch:
        """Return the candidates that may be proposed."""
        costed = [(name, values, self._costs(values)) for name, values in candidates.items()]
        kept = [(name, values, costs) for name, values, costs in costed if costs is not None]
        return CandidateBatch.of(
            [v for _, v, _ in kept], [c for *_, c in kept], self._encoder, [name for name, *_ in kept]
        )

    def _costs(self, values: Values) -> Mapping[str, float] | None:
        """Return the known costs of a candidate; ``None`` for a new student once the allowance is used up."""
        if math.isinf(self._allowance) or self._is_free(values):
            return self._known_costs.costs(values)
        if self._allowance <= 0 or self._counting_seconds > LONGEST:
            return None
        self._allowance -= 1
        began = time.perf_counter()
        found = self._known_costs.costs(values)
        self._counting_seconds += time.perf_counter() - began
        self.counted[self._known_costs.settings_of(values)] = None
        for oldest in list(self.counted)[:-MOST_COUNTED]:
            del self.counted[oldest]
        return found

    def _is_free(self, values: Values) -> bool:
        """Return whether a student is surveyed or was counted before; a resumed study knows the same ones."""
        settings = self._known_costs.settings_of(values)
        return self._known_costs.is_surveyed(settings) or settings in self.counted

    def _around(self, candidates: list[Values], known: set[moves.Key], most: int) -> CandidateBatch:
        """Return candidates that are new and may be proposed; beyond a surveyed pool, of a few new students only."""
        if not self._known_costs.goes_beyond:
            return self.feasible(moves.unique(candidates, known))
        self._allowance, self._counting_seconds = most, 0.0
        order = self.rng.permutation(len(candidates)).tolist()  # else the first parent would use up the allowance
        found = self.feasible(moves.unique((candidates[i] for i in order), known))
        self._allowance, self._counting_seconds = math.inf, -math.inf
        return found

    def draws(self, count: int) -> CandidateBatch:
        """Return fresh random candidates."""
        return self.feasible(moves.unique((self._known_costs.draw(self.rng) for _ in range(count)), set()))

    def any_remaining(self, seen: AbstractSet[moves.Key]) -> Values | None:
        """Return a random remaining candidate, preferring cached costs; ``None`` if none is found.

        Counting takes long, so other students are counted one by one, for :data:`SEARCHED` seconds at most.
        """
        until = time.perf_counter() + SEARCHED
        for candidates in self._rounds(seen):
            left: list[Values] = [v for v in candidates if moves.key(v) not in seen]
            order: list[int] = self.rng.permutation(len(left)).tolist()
            for i in sorted(order, key=lambda i: not self._is_free(left[i])):
                if self._known_costs.costs(left[i]) is not None:
                    return left[i]
                if time.perf_counter() > until:
                    return None
        return None

    def _rounds(self, seen: AbstractSet[moves.Key]) -> Iterator[list[Values]]:
        """Yield the whole space; if it cannot be enumerated, yield draws and neighbours of earlier moves."""
        everything = self._space.enumerate()
        if everything is not None:
            yield everything
            return
        taken = sorted(seen, key=repr)  # the order of a set of strings differs between processes
        for _ in range(PATIENCE):
            drawn = [self._known_costs.draw(self.rng) for _ in range(DRAWS)]
            parents = self.rng.permutation(len(taken))[:PARENTS].tolist()
            yield [*drawn, *(c for i in parents for c in moves.neighbours(self._space, dict(taken[i]), self.rng))]

    def promising(
        self,
        parents: Sequence[Mapping[str, Any]],
        seen: AbstractSet[moves.Key],
        gain: Callable[[CandidateBatch], Floats],
    ) -> tuple[CandidateBatch, Floats]:
        """Return new candidates and their gains.

        Args:
            parents: candidates on the front.
            seen: keys of candidates that are not proposed again.
            gain: function that returns the gain of each candidate of a batch.
        """
        pool = self.reference().unseen(seen)
        known = {*seen, *pool.keys}
        if len(parents) > PARENTS:
            parents = [parents[int(i)] for i in self.rng.choice(len(parents), size=PARENTS, replace=False)]
        moved = [c for parent in parents for c in moves.neighbours(self._space, parent, self.rng)]
        mixed = moves.crossovers(self._space, parents, MIXTURES, self.rng)
        drawn = [self._known_costs.draw(self.rng) for _ in range(DRAWS)]
        far = [self._space.sample(self.rng) for _ in range(FAR if self._known_costs.goes_beyond else 0)]
        pool = pool.join(self._around([*moved, *mixed, *drawn, *far], known, BEYOND))
        gains = gain(pool)
        climbed: set[moves.Key] = set()
        for _ in range(CLIMBS):
            top = [i for i in np.argsort(-gains, kind="stable")[:CLIMBERS].tolist() if pool.keys[i] not in climbed]
            climbed.update(pool.keys[i] for i in top)
            steps = [c for i in top for c in moves.neighbours(self._space, pool.values[i], self.rng, self._free)]
            near = self._around(steps, known, BEYOND_CLIMB)
            if not near.values:
                break
            pool, gains = pool.join(near), np.concatenate([gains, gain(near)])
        return pool, gains
