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
from autodistill.core.records import Constraint, Objective, derive_seed
from autodistill.search.model.scoring import EpochCost
from autodistill.search.sampler.front_sampler import FrontSampler
from autodistill.search.sampler.known_costs import CostFunction
from autodistill.search.space.distributions import from_unit
from autodistill.search.space.priors import at_unit
from autodistill.search.space.space import Space

SAMPLERS = ("front", "gp", "tpe", "nsga2", "nsga3", "random", "qmc")

BY_TRIALS = ("front", "random")
"""Samplers whose draws depend on the stored trials too: with one seed, a resumed study goes on as if uninterrupted."""


class RandomDraws(optuna.samplers.RandomSampler):
    """Random sampler that draws each value from its prior, or evenly over its range.

    A value depends only on the seed, the trial's number and the parameter's name. A resumed study therefore continues
    as an uninterrupted one would.

    Args:
        space: the search space.
        seed: seed of the draws.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        super().__init__(seed=seed)
        self._priors = {p.name: p for p in space.parameters if p.prior is not None}
        self._seed = seed

    def reseed_rng(self) -> None:
        """Do nothing (Optuna's hook for a copy in another worker): other trials have other numbers."""

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one value."""
        del study
        known = self._priors.get(param_name)
        prior = known.prior if known is not None and known.distribution == param_distribution else None
        uniform = np.random.default_rng(derive_seed(self._seed, trial.number, param_name)).random()
        return from_unit(param_distribution, at_unit(prior, float(uniform)))


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
        seed: seed of the draws; those not in :data:`BY_TRIALS` repeat their proposals if it is the same after a resume.
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
