"""Samplers by name: ``front`` is ours, Optuna's stay selectable."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import optuna
from optuna.samplers import BaseSampler

from autodistill.errors import UnknownNameError
from autodistill.records import Constraint, Objective
from autodistill.search.catalogue import CostFunction
from autodistill.search.judge import EpochCost
from autodistill.search.sampler import FrontSampler
from autodistill.search.space import Space

SAMPLERS = ("front", "gp", "tpe", "nsga2", "nsga3", "random", "qmc")


def build(
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
    """The sampler called ``name``.

    Args:
        name: one of :data:`SAMPLERS`.
        space: the search space.
        seed: derived from the study's seed and the number of its stored trials, so that a resumed study does not
            repeat its proposals.
        objectives: in the order of the study's values.
        costs: known costs of a student; only ``front`` uses them.
        constraints: only ``front`` uses them here.
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
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "qmc": lambda: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
    }
    if name not in makers:
        raise UnknownNameError("sampler", name, SAMPLERS)
    with warnings.catch_warnings():  # group and QMC are called experimental since 2021
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return makers[name]()
