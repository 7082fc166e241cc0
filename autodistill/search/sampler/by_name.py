"""Samplers by name: ``front`` is this package's own; Optuna's samplers can be selected too."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from autodistill.core.errors import UnknownNameError
from autodistill.core.records import Constraint, Objective
from autodistill.search.model.scoring import EpochCost
from autodistill.search.sampler.front_sampler import FrontSampler
from autodistill.search.sampler.known_costs import CostFunction
from autodistill.search.space.distributions import from_unit
from autodistill.search.space.space import Space

SAMPLERS = ("front", "gp", "tpe", "nsga2", "nsga3", "random", "qmc")


class RandomDraws(optuna.samplers.RandomSampler):
    """Optuna's random sampler, extended to draw parameters that have a prior from their prior.

    Args:
        space: the search space.
        seed: seed of the draws.
    """

    def __init__(self, space: Space, *, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self._priors = {p.name: p for p in space.parameters if p.prior is not None}
        self._own = np.random.default_rng(seed)

    def reseed_rng(self) -> None:
        """Reseed a copy of the sampler in another worker (Optuna's hook)."""
        super().reseed_rng()
        self._own = np.random.default_rng()

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one value."""
        known = self._priors.get(param_name)
        if known is None or known.prior is None or known.distribution != param_distribution:
            return super().sample_independent(study, trial, param_name, param_distribution)
        return from_unit(param_distribution, known.prior.unit(float(self._own.random())))


def build_sampler(
    name: str,
    space: Space,
    *,
    seed: int,
    objectives: Sequence[Objective],
    costs: CostFunction | None = None,
    constraints: Sequence[Constraint] = (),
    aims: Sequence[Constraint] = (),
    rungs: Sequence[float] = (),
    epoch_cost: EpochCost | None = None,
) -> BaseSampler:
    """Build the sampler called ``name``.

    Only ``front`` and ``random`` use the priors of a space; Optuna's other samplers draw their first trials without
    them.

    Args:
        name: one of :data:`SAMPLERS`.
        space: the search space.
        seed: derived from the study's seed and its number of stored trials, so that a resumed study does not repeat
            its proposals.
        objectives: objectives in the order of the study's values.
        costs: known costs of a student; used only by ``front``.
        constraints: constraints; used only by ``front``.
        aims: see :class:`FrontSampler`.
        rungs: cumulative epochs of the rungs; ``front`` learns from all of them.
        epoch_cost: see :class:`FrontSampler`.

    Raises:
        UnknownNameError: ``name`` is not a sampler.
    """
    if name == "front":
        return FrontSampler(
            space,
            objectives,
            costs=costs,
            constraints=constraints,
            aims=aims,
            seed=seed,
            rungs=rungs,
            epoch_cost=epoch_cost,
        )
    makers: dict[str, Callable[[], BaseSampler]] = {
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed),
        "nsga3": lambda: optuna.samplers.NSGAIIISampler(seed=seed),
        "random": lambda: RandomDraws(space, seed=seed),
        "qmc": lambda: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
    }
    if name not in makers:
        raise UnknownNameError("sampler", name, SAMPLERS)
    with warnings.catch_warnings():  # Optuna has marked `group` and QMC as experimental since 2021
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return makers[name]()
