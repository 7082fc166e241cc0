"""How much of each objective's variance each parameter explains, over the COMPLETE trials of a study.

By functional ANOVA of a random forest (Hutter 2014), Optuna's evaluator. It wants every trial to have every parameter,
and most parameters of a space exist only under a condition (the width of a resnet, the temperature of a loss). Where
one is not active its value cannot matter, so it gets a random one: that is a sample of the same function on the whole
product of the ranges, and tells nothing about which trials had the parameter. The trees are grown on several fillings.

For costs that are known before training, parameters that are no student's are left out: they cannot move a cost, and
seem to only because a search pairs them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from autodistill.search.space.distributions import from_unit

if TYPE_CHECKING:
    from autodistill.search.study.study import Study

LEAST = 4
"""COMPLETE trials below which shares say nothing; also those that must have a parameter."""

FILLINGS, TREES = 4, 16
"""Random fillings that shares are averaged over, and trees that are grown on each."""


def importance_shares(study: Study) -> dict[str, dict[str, float]]:
    """Objective to parameter to its share of the variance; empty where the objective does not vary."""
    complete, known = _complete(study), _varied(study)
    filled = [_filled(complete, known, seed) for seed in range(FILLINGS if complete else 0)]
    out: dict[str, dict[str, float]] = {}
    for index, objective in enumerate(study.objectives):
        seen = {t.values[index] for t in complete}
        movers = [name for name in known if objective.stage == "trained" or name.startswith("student.")]
        out[objective.name] = {}
        if len(seen) > 1 and movers:
            found = [_shares(one, movers, _value(index)) for one in filled]
            means = {name: float(sum(shares.get(name, 0.0) for shares in found)) / FILLINGS for name in movers}
            out[objective.name] = dict(sorted(means.items(), key=lambda item: -item[1]))
    return out


def left_out(study: Study) -> list[str]:
    """Parameters of the space that have no share: too few COMPLETE trials had them, or all with one value."""
    known = _varied(study)
    return [p.name for p in study.space.parameters if p.name not in known and not p.distribution.single()]


def _complete(study: Study) -> list[FrozenTrial]:
    return study.optuna.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def _varied(study: Study) -> dict[str, BaseDistribution]:
    """Parameters that enough COMPLETE trials had, with more than one value."""
    complete, out = _complete(study), {}
    for parameter in study.space.parameters:
        values = [t.params[parameter.name] for t in complete if parameter.name in t.params]
        if len(values) >= LEAST and any(value != values[0] for value in values):
            out[parameter.name] = parameter.distribution
    return out


def _filled(trials: Sequence[FrozenTrial], known: Mapping[str, BaseDistribution], seed: int) -> optuna.Study:
    """The trials in a study of their own, with a random value for every parameter that one does not have."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(directions=["minimize"] * len(trials[0].values))
    for trial in trials:
        drawn = {name: from_unit(d, rng.random()) for name, d in known.items()}
        params: dict[str, Any] = {name: trial.params.get(name, value) for name, value in drawn.items()}
        with contextlib.suppress(ValueError):  # a value outside the space, told to the study by somebody else
            study.add_trial(optuna.trial.create_trial(params=params, distributions=dict(known), values=trial.values))
    return study


def _shares(study: optuna.Study, names: list[str], target: Callable[[FrozenTrial], float]) -> dict[str, float]:
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    return dict(get_param_importances(study, evaluator=evaluator, params=names, target=target))


def _value(index: int) -> Callable[[FrozenTrial], float]:
    def target(trial: FrozenTrial) -> float:
        return float(trial.values[index])

    return target
