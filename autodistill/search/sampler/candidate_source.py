"""Where the front sampler's new candidates come from: what may be proposed, with its known costs.

A fixed random sample of the space (it also sets the scales of the known costs), fresh draws, moves around the front and
mixtures of its members, then moves around the most promising of all of them. Ranking is the caller's.

With a surveyed pool the sample and most draws are of the pool. Moves, mixtures and the other draws lead beyond it, to
students whose costs somebody has to count, which takes time: only so many are looked at for every proposal.
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
from autodistill.search.sampler.known_costs import KnownCosts
from autodistill.search.space import moves as proposals
from autodistill.search.space.encoding import Encoder

Floats = npt.NDArray[np.float64]
Values = dict[str, Any]

REFERENCE_SAMPLE = 600
DRAWS, FAR, MIXTURES, PARENTS = 40, 10, 40, 12
CLIMBS, CLIMBERS = 3, 5
BEYOND, BEYOND_CLIMB = 6, 3
"""Students outside a surveyed pool that are looked at for the first time: at first, and for each of the climbs."""

LONGEST = 0.5
"""Seconds after which no further new student is looked at, at first and in each climb: some costs take long."""

PATIENCE, SEARCHED = 100, 30.0
"""How many times 40 draws are made before a space that cannot be enumerated is called exhausted, and for how many
seconds students are counted at most, in any space, to find one that may be proposed."""


class CandidateSource:
    """Feasible candidates of a space.

    Args:
        known_costs: which students may be proposed, and what they cost.
        encoder: parameters to features.
        rng: of the draws; the reference sample has its own.
    """

    def __init__(self, known_costs: KnownCosts, encoder: Encoder, rng: np.random.Generator) -> None:
        self._known_costs, self._encoder = known_costs, encoder
        self._space = known_costs.space
        self._free = proposals.free_numbers(self._space).keys()  # these are polished, all at once
        self._reference: CandidateBatch | None = None
        self._allowance, self._looked = math.inf, -math.inf  # students and seconds; without limits outside a proposal
        self.rng = rng

    def forget(self) -> None:
        """The catalogue has changed."""
        self._reference = None

    def leave_out_forbidden(self) -> None:
        """The catalogue forbids more than before; what else is in the sample stays, and with it the scales."""
        if self._reference is not None:
            allowed = [self._known_costs.costs(values) is not None for values in self._reference.values]
            self._reference = self._reference.take([i for i, kept in enumerate(allowed) if kept])

    def reference(self) -> CandidateBatch:
        """Random feasible candidates; the same ones after a resume, so that scales do not move."""
        if self._reference is None:
            rng = np.random.default_rng(0)
            drawn = (self._known_costs.draw(rng) for _ in range(REFERENCE_SAMPLE))
            self._reference = self.feasible(proposals.unique(drawn, set()))
        return self._reference

    def feasible(self, candidates: Mapping[proposals.Key, Values]) -> CandidateBatch:
        """Keep what may be proposed."""
        priced = [(name, values, self._costs(values)) for name, values in candidates.items()]
        kept = [(name, values, costs) for name, values, costs in priced if costs is not None]
        return CandidateBatch.of(
            [v for _, v, _ in kept], [c for *_, c in kept], self._encoder, [name for name, *_ in kept]
        )

    def _costs(self, values: Values) -> Mapping[str, float] | None:
        """Known costs, for as many new students as are allowed."""
        if self._known_costs.was_asked(values):
            return self._known_costs.costs(values)
        if self._allowance <= 0 or self._looked > LONGEST:
            return None
        self._allowance -= 1
        began = time.perf_counter()
        found = self._known_costs.costs(values)
        self._looked += time.perf_counter() - began
        return found

    def _around(self, candidates: list[Values], known: set[proposals.Key], most: int) -> CandidateBatch:
        """Those of ``candidates`` that are new and may be proposed; beyond a surveyed pool, some of the students."""
        if not self._known_costs.goes_beyond:
            return self.feasible(proposals.unique(candidates, known))
        self._allowance, self._looked = most, 0.0
        order = self.rng.permutation(len(candidates)).tolist()  # else the first parent's neighbours would take it all
        found = self.feasible(proposals.unique((candidates[i] for i in order), known))
        self._allowance, self._looked = math.inf, -math.inf
        return found

    def draws(self, count: int) -> CandidateBatch:
        """Fresh random candidates."""
        return self.feasible(proposals.unique((self._known_costs.draw(self.rng) for _ in range(count)), set()))

    def anything(self, seen: AbstractSet[proposals.Key]) -> Values | None:
        """A random candidate that is left, one whose costs are at hand before others; ``None`` where none is found.

        A count takes long, so that the others are looked at one by one, and for :data:`SEARCHED` seconds at most.
        """
        until = time.perf_counter() + SEARCHED
        for candidates in self._rounds(seen):
            left: list[Values] = [v for v in candidates if proposals.key(v) not in seen]
            order: list[int] = self.rng.permutation(len(left)).tolist()
            for i in sorted(order, key=lambda i: not self._known_costs.was_asked(left[i])):
                if self._known_costs.costs(left[i]) is not None:
                    return left[i]
                if time.perf_counter() > until:
                    return None
        return None

    def _rounds(self, seen: AbstractSet[proposals.Key]) -> Iterator[list[Values]]:
        """The whole space at once; where it cannot be enumerated, draws and what is near to what was proposed."""
        everything = self._space.enumerate()
        if everything is not None:
            yield everything
            return
        taken = sorted(seen, key=repr)  # a set of strings has another order in every process
        for _ in range(PATIENCE):
            drawn = [self._known_costs.draw(self.rng) for _ in range(DRAWS)]
            parents = self.rng.permutation(len(taken))[:PARENTS].tolist()
            yield [*drawn, *(c for i in parents for c in proposals.neighbours(self._space, dict(taken[i]), self.rng))]

    def promising(
        self,
        parents: Sequence[Mapping[str, Any]],
        seen: AbstractSet[proposals.Key],
        gain: Callable[[CandidateBatch], Floats],
    ) -> tuple[CandidateBatch, Floats]:
        """New candidates and their gains.

        Args:
            parents: candidates on the front.
            seen: keys that are not to be proposed again.
            gain: what each candidate of a pool may add.
        """
        pool = self.reference().unseen(seen)
        known = {*seen, *pool.keys}
        if len(parents) > PARENTS:
            parents = [parents[int(i)] for i in self.rng.choice(len(parents), size=PARENTS, replace=False)]
        moved = [c for parent in parents for c in proposals.neighbours(self._space, parent, self.rng)]
        mixed = proposals.crossovers(self._space, parents, MIXTURES, self.rng)
        drawn = [self._known_costs.draw(self.rng) for _ in range(DRAWS)]
        far = [self._space.sample(self.rng) for _ in range(FAR if self._known_costs.goes_beyond else 0)]
        pool = pool.join(self._around([*moved, *mixed, *drawn, *far], known, BEYOND))
        gains = gain(pool)
        climbed: set[proposals.Key] = set()
        for _ in range(CLIMBS):
            top = [i for i in np.argsort(-gains, kind="stable")[:CLIMBERS].tolist() if pool.keys[i] not in climbed]
            climbed.update(pool.keys[i] for i in top)
            moves = [c for i in top for c in proposals.neighbours(self._space, pool.values[i], self.rng, self._free)]
            near = self._around(moves, known, BEYOND_CLIMB)
            if not near.values:
                break
            pool, gains = pool.join(near), np.concatenate([gains, gain(near)])
        return pool, gains
