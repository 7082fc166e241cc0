"""Rung rules: does a trial that has just reported go on, and which paused trial deserves the next work?

* :class:`ModelRule` asks the front sampler, which compares paused trials with the best new candidate by a Gittins
  index (:mod:`autodistill.search.rungs.promotion`). It never gives a trial up: what waits may become the best choice.
* :class:`PeerRule` needs only the other trials at the same rung, and serves every other sampler. A trial waits until
  enough have reported there to compare with; then it goes on, or is stopped for good.

Both answer from what is stored, so that a resumed study decides as the first run would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import optuna

from autodistill.core.records import Constraint, Objective
from autodistill.search.objectives.losses import axis_losses
from autodistill.search.objectives.objectives import worst_wanted
from autodistill.search.rungs import promotion
from autodistill.search.rungs.levels import Rungs
from autodistill.search.rungs.losses_by_rung import LossesByRung
from autodistill.search.rungs.promotion import Action, PausedTrial, Peers, RungDecision
from autodistill.search.sampler.front_sampler import FrontSampler

Floats = npt.NDArray[np.float64]

COMPARED = 400
"""Newest reports at a rung that a trial is compared with: its place among them is as good as among all."""

MIN_GAIN = 1e-3
"""Share of the front's box: a paused trial that is expected to add less may add nothing worth its work."""


class Rule(Protocol):
    """What the agenda asks."""

    def verdict(self, number: int, rung: int) -> RungDecision | None:
        """On a trial that has just reported; ``None``: :meth:`next` decides, with the trial among the paused ones."""

    def next(self, paused: Mapping[int, int], left: float) -> Action | None:
        """A paused trial (number to its last rung) or a new candidate; ``None`` when nothing fits into ``left``."""

    def finalists(self, paused: Mapping[int, int], *, few: bool) -> list[int]:
        """Paused trials that may still add something when nothing new is started, best first, as of the last ``next``.

        Args:
            paused: number to last rung.
            few: only those that deserve it, as if new candidates were still to come.
        """

    def lost(self, paused: Mapping[int, int]) -> dict[int, str]:
        """Paused trials that will never go on, and why."""

    def standing(self, number: int) -> PausedTrial | None:
        """What the last comparison found about a paused trial."""


class PeerRule:
    """By the other trials at the same rung.

    Successive halving on losses carried forward (:func:`promotion.decide`) where the first objective is trained and
    the others are known; plain multi-objective successive halving otherwise.

    Args:
        rungs: fidelities and ``eta``.
        objectives: of the study.
        losses_by_rung: what was reported.
        constraints: trials that are expected to keep to those on trained objectives, at the top rung, come before the
            others of their rung.
    """

    def __init__(
        self,
        rungs: Rungs,
        objectives: Sequence[Objective],
        losses_by_rung: LossesByRung,
        constraints: Sequence[Constraint] = (),
    ) -> None:
        self._rungs, self._losses_by_rung = rungs, losses_by_rung
        self._wanted = _wanted(objectives, constraints)
        self.trains = any(o.stage == "trained" for o in objectives)
        self._carries = objectives[0].stage == "trained" and all(o.stage == "known" for o in objectives[1:])

    def scorer(self, number: int, rung: int) -> RungDecision:
        """Go on, wait, or stop for good."""
        numbers, losses = self._losses_by_rung.at(rung, COMPARED)
        own = self._losses_by_rung.row(rung, number)
        if own is None or len(set(numbers) | {number}) < self._rungs.eta:
            return RungDecision(False, f"waits: fewer than {self._rungs.eta} trials have reached rung {rung}")
        others = np.flatnonzero(np.array(numbers) != number)
        losses, numbers = np.concatenate([[own], losses[others]]), [number, *(numbers[i] for i in others)]
        if not self._carries:
            found = self._rungs.decide(rung, losses[0].tolist(), losses[1:].tolist())
            return RungDecision(found.go_on, found.why, final=not found.go_on)
        peers = _scaled(losses, self._losses_by_rung.final(numbers), self._wanted[0])
        verdict = promotion.decide(peers, 0, eta=self._rungs.eta)
        return RungDecision(verdict.go_on, verdict.why, final=not verdict.go_on)

    def verdict(self, number: int, rung: int) -> RungDecision | None:
        """See :class:`Rule`."""
        found = self.scorer(number, rung)
        return found if found.go_on or found.final else None

    def next(self, paused: Mapping[int, int], left: float) -> Action | None:
        """See :class:`Rule`: the highest rung first."""
        del left
        for number in self._ordered(paused):
            verdict = self.scorer(number, paused[number])
            if verdict.go_on:
                return Action(number, math.inf, verdict.why)
        return Action(None, 0.0, f"waits until {self._rungs.eta} trials have reached this rung")

    def finalists(self, paused: Mapping[int, int], *, few: bool) -> list[int]:
        """See :class:`Rule`: those that wait, since nobody else will come, and those that go on anyway."""
        ordered = self._ordered(paused)
        if not few:
            return ordered
        verdicts = {n: self.scorer(n, paused[n]) for n in ordered}
        return [n for n in ordered if not verdicts[n].final]

    def lost(self, paused: Mapping[int, int]) -> dict[int, str]:
        """See :class:`Rule`."""
        verdicts = {n: self.scorer(n, rung) for n, rung in paused.items()}
        return {n: verdict.why for n, verdict in verdicts.items() if verdict.final}

    def standing(self, number: int) -> PausedTrial | None:
        """See :class:`Rule`: no figures without a model."""
        del number
        return None

    def _ordered(self, paused: Mapping[int, int]) -> list[int]:
        """The highest rung first; at a rung what is good enough, then by front number and epsilon-net."""
        out: list[int] = []
        for rung in sorted(set(paused.values()), reverse=True):
            here = [n for n, at in paused.items() if at == rung]
            rows = [self._losses_by_rung.row(rung, n) for n in here]
            known = [n for n, row in zip(here, rows, strict=True) if row is not None]
            losses = np.array([row for row in rows if row is not None])
            order = promotion.front_order(losses) if known else []
            short = self._short(rung, known, losses)
            out += [known[i] for i in sorted(order, key=short.__getitem__)]
            out += [n for n in here if n not in known]
        return out

    def _short(self, rung: int, numbers: list[int], losses: Floats) -> list[bool]:
        """Which of some trials at a rung are expected to end beyond what is wanted; of no use, as far as one knows."""
        if not numbers or not np.isfinite(self._wanted).any():
            return [False] * len(numbers)
        if not self._carries:
            return [bool((row > self._wanted).any()) for row in losses]
        others, seen = self._losses_by_rung.at(rung, COMPARED)
        rows = np.concatenate([losses, seen])
        peers = _scaled(rows, self._losses_by_rung.final([*numbers, *others]), self._wanted[0])
        expected, _ = promotion.carried_forward(peers)
        carried: list[bool] = (expected[: len(numbers), 0] > peers.wanted).tolist()
        return carried


class ModelRule:
    """By the front sampler's model.

    Args:
        sampler: gives the sampler that proposes now.
        study: the Optuna study.
        plain: answers while the sampler knows too little.
    """

    def __init__(self, sampler: Callable[[], FrontSampler], study: optuna.Study, plain: PeerRule) -> None:
        self._sampler, self._study, self._plain = sampler, study, plain

    def verdict(self, number: int, rung: int) -> RungDecision | None:
        """See :class:`Rule`: the comparison decides."""
        del number, rung
        return None

    def next(self, paused: Mapping[int, int], left: float) -> Action | None:
        """See :class:`Rule`."""
        return self._sampler().next_action(self._study, paused=list(paused), remaining=left)

    def finalists(self, paused: Mapping[int, int], *, few: bool) -> list[int]:
        """See :class:`Rule`."""
        known = [s for s in self._sampler().last_standings.values() if s.trial in paused]
        if not known:
            # where all is known before training, a rung tells against nobody
            return self._plain.finalists(paused, few=few and self._plain.trains)
        return [s.trial for s in sorted(known, key=lambda s: -s.index) if s.gain >= MIN_GAIN]

    def lost(self, paused: Mapping[int, int]) -> dict[int, str]:
        """See :class:`Rule`: none."""
        del paused
        return {}

    def standing(self, number: int) -> PausedTrial | None:
        """See :class:`Rule`."""
        return self._sampler().last_standings.get(number)


def _wanted(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> Floats:
    """The worst loss of each objective that is wanted, ``(objectives,)``; infinite without a bound."""
    bounds = worst_wanted(constraints, objectives)
    row = axis_losses(objectives, [{o.name: bounds.get(o.name, 1.0) for o in objectives}])[0]
    return np.where([o.name in bounds for o in objectives], row, np.inf)


def _scaled(losses: Floats, final: Floats, wanted: float) -> Peers:
    """Every objective from 0 to 1 over all that was seen, so that distances mean something; ``wanted`` likewise."""
    seen = np.concatenate([losses, final[np.isfinite(final).all(axis=1)]])
    low, high = seen.min(axis=0), seen.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    return Peers((losses - low) / span, (final - low) / span, (wanted - low[0]) / span[0])
