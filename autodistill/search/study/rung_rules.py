"""Rung rules: whether a trial that has just reported continues, and which paused trial continues next.

* :class:`ModelRule` uses the front sampler, which compares paused trials with the best new candidate by a Gittins
  index (:mod:`autodistill.search.rungs.promotion`). It stops no trial for good: a paused trial may become the best
  choice later.
* :class:`PeerRule` needs only the other trials at the same rung and works with every other sampler. A trial waits
  until enough trials have reported at its rung; then it continues or is stopped for good.

Both decide from stored data only, so that a resumed study decides as an uninterrupted run would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import optuna

from autodistill.core.records import Constraint, Objective
from autodistill.search.objectives.objectives import worst_wanted
from autodistill.search.objectives.values_as_losses import axis_losses
from autodistill.search.rungs import promotion
from autodistill.search.rungs.levels import RungDecision, Rungs
from autodistill.search.rungs.losses_by_rung import LossesByRung
from autodistill.search.rungs.promotion import Action, PausedTrial, Peers
from autodistill.search.sampler.front_sampler import FrontSampler

Floats = npt.NDArray[np.float64]

COMPARED = 400
"""Newest reports at a rung that a trial is compared with; enough to estimate its rank among all."""

MIN_GAIN = 1e-3
"""Smallest expected gain worth the work of a paused trial, as a share of the hypervolume box."""


class Rule(Protocol):
    """Interface of the rung rules, as the scheduler uses it."""

    def verdict(self, number: int, rung: int) -> RungDecision | None:
        """Decide on a trial that has just reported; ``None`` leaves it to :meth:`next`, as one of the paused trials."""

    def next(self, paused: Mapping[int, int], left: float) -> Action | None:
        """Choose a paused trial (number to last rung) or a new candidate; ``None`` if nothing fits into ``left``."""

    def finalists(self, paused: Mapping[int, int], *, few: bool) -> list[int]:
        """Return paused trials that may still gain if nothing new is started, best first, as of the last :meth:`next`.

        Args:
            paused: number of each paused trial to its last rung.
            few: return only trials worth their work, as if new candidates were still to come.
        """

    def lost(self, paused: Mapping[int, int]) -> dict[int, str]:
        """Return the paused trials that will never continue, with reasons."""

    def standing(self, number: int) -> PausedTrial | None:
        """Return the result of the last comparison for a paused trial; ``None`` if there is none."""


class PeerRule:
    """Rung rule that compares a trial with the other trials at the same rung.

    It uses successive halving on losses carried forward (:func:`promotion.decide`) if the first objective is trained
    and the others are known before training, and plain multi-objective successive halving otherwise.

    Args:
        rungs: fidelities and ``eta``.
        objectives: objectives of the study.
        losses_by_rung: reported losses.
        constraints: bounds; within a rung, trials expected to satisfy those on trained objectives at the top rung
            come first.

    Attributes:
        trains: whether some objective is known only after training.
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

    def compare(self, number: int, rung: int) -> RungDecision:
        """Decide whether a trial continues, waits or is stopped for good."""
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
        """Decide on a trial that has just reported; ``None`` if it must wait. See :class:`Rule`."""
        found = self.compare(number, rung)
        return found if found.go_on or found.final else None

    def next(self, paused: Mapping[int, int], left: float) -> Action | None:
        """Choose the first paused trial that continues, highest rung first; see :class:`Rule`."""
        del left
        for number in self._ordered(paused):
            decision = self.compare(number, paused[number])
            if decision.go_on:
                return Action(number, math.inf, decision.why)
        return Action(None, 0.0, f"waits until {self._rungs.eta} trials have reached this rung")

    def finalists(self, paused: Mapping[int, int], *, few: bool) -> list[int]:
        """Return the waiting trials (no further trials will report) and those that continue; see :class:`Rule`."""
        ordered = self._ordered(paused)
        if not few:
            return ordered
        verdicts = {n: self.compare(n, paused[n]) for n in ordered}
        return [n for n in ordered if not verdicts[n].final]

    def lost(self, paused: Mapping[int, int]) -> dict[int, str]:
        """Return the trials that are stopped for good; see :class:`Rule`."""
        verdicts = {n: self.compare(n, rung) for n, rung in paused.items()}
        return {n: verdict.why for n, verdict in verdicts.items() if verdict.final}

    def standing(self, number: int) -> PausedTrial | None:
        """Return ``None``: without a model there is no expected gain. See :class:`Rule`."""
        del number
        return None

    def _ordered(self, paused: Mapping[int, int]) -> list[int]:
        """Sort by rung, highest first; within a rung, trials within the bounds first, then by front and epsilon-net."""
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
        """Return for each trial at a rung whether it is expected to end outside the wanted bounds."""
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
    """Rung rule that uses the front sampler's model.

    Args:
        sampler: returns the current sampler.
        study: the Optuna study.
        plain: rule used while the sampler has too little data.
    """

    def __init__(self, sampler: Callable[[], FrontSampler], study: optuna.Study, plain: PeerRule) -> None:
        self._sampler, self._study, self._plain = sampler, study, plain

    def verdict(self, number: int, rung: int) -> RungDecision | None:
        """Return ``None``: :meth:`next` decides. See :class:`Rule`."""
        del number, rung
        return None

    def next(self, paused: Mapping[int, int], left: float) -> Action | None:
        """Choose by the sampler's comparison; see :class:`Rule`."""
        return self._sampler().next_action(self._study, paused=list(paused), remaining=left)

    def finalists(self, paused: Mapping[int, int], *, few: bool) -> list[int]:
        """Return paused trials with an expected gain of at least :data:`MIN_GAIN`, best first; see :class:`Rule`."""
        known = [s for s in self._sampler().last_standings.values() if s.trial in paused]
        if not known:
            # if every objective is known before training, a report at a rung stops no trial
            return self._plain.finalists(paused, few=few and self._plain.trains)
        return [s.trial for s in sorted(known, key=lambda s: -s.index) if s.gain >= MIN_GAIN]

    def lost(self, paused: Mapping[int, int]) -> dict[int, str]:
        """Return nothing: a paused trial may become the best choice later. See :class:`Rule`."""
        del paused
        return {}

    def standing(self, number: int) -> PausedTrial | None:
        """Return the sampler's last comparison of a paused trial; see :class:`Rule`."""
        return self._sampler().last_standings.get(number)


def _wanted(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> Floats:
    """Return the worst wanted loss of each objective, shape ``(objectives,)``; infinite without a bound."""
    bounds = worst_wanted(constraints, objectives)
    row = axis_losses(objectives, [{o.name: bounds.get(o.name, 1.0) for o in objectives}])[0]
    return np.where([o.name in bounds for o in objectives], row, np.inf)


def _scaled(losses: Floats, final: Floats, wanted: float) -> Peers:
    """Scale each objective to 0–1 over all observed losses, so that distances are comparable; ``wanted`` likewise."""
    seen = np.concatenate([losses, final[np.isfinite(final).all(axis=1)]])
    low, high = seen.min(axis=0), seen.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    return Peers((losses - low) / span, (final - low) / span, (wanted - low[0]) / span[0])
