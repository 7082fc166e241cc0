"""Importance of parameters: the share of each objective's variance that each explains, over COMPLETE trials.

It is computed by functional ANOVA of a random forest (Hutter 2014), with Optuna's evaluator. The evaluator needs every
parameter in every trial, but most parameters of a space exist only under a condition (the width of a resnet, the
temperature of a loss). The value of an inactive parameter has no effect, so it is drawn at random. The result is a
sample of the same function on the whole product of the ranges, and it does not reveal which trials had the parameter.
Shares are averaged over several such fillings.

For costs known before training, parameters of distillation and training are left out. They cannot change a cost, and
only seem to because a search correlates them with students.
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
from autodistill.search.space.space import Space
from autodistill.search.storage.history import StoredTrial

if TYPE_CHECKING:
    from autodistill.search.study.study import Study

LEAST = 4
"""COMPLETE trials with a parameter that are needed to compute its share."""

MOST = 300
"""Most COMPLETE trials that shares are computed from; the time grows with their square."""

FILLINGS, TREES = 4, 16
"""Number of random fillings that shares are averaged over, and of trees fitted to each."""


def importance_shares(study: Study) -> dict[str, dict[str, float]]:
    """Return for each objective the share of its variance per parameter; empty if the objective does not vary."""
    complete = _complete(study)
    known = _varied(complete, study.space)
    filled = [_filled(complete, known, seed) for seed in range(FILLINGS if complete else 0)]
    out: dict[str, dict[str, float]] = {}
    for index, objective in enumerate(study.objectives):
        seen = {(t.values or ())[index] for t in complete}
        movers = [name for name in known if objective.stage == "trained" or name.startswith("student.")]
        out[objective.name] = {}
        if len(seen) > 1 and movers:
            found = [_shares(one, movers, _value(index)) for one in filled]
            means = {name: float(sum(shares.get(name, 0.0) for shares in found)) / FILLINGS for name in movers}
            out[objective.name] = dict(sorted(means.items(), key=lambda item: -item[1]))
    return out


def left_out(study: Study) -> list[str]:
    """Return the parameters of the space without a share: too few COMPLETE trials had them, or all had one value."""
    known = _varied(_complete(study), study.space)
    return [p.name for p in study.space.parameters if p.name not in known and not p.distribution.single()]


def _complete(study: Study) -> list[StoredTrial]:
    """Return the COMPLETE trials; of more than :data:`MOST`, an even sample over the whole search."""
    complete = [t for t in study.stored() if t.state is optuna.trial.TrialState.COMPLETE]
    return complete if len(complete) <= MOST else [complete[int(i * len(complete) / MOST)] for i in range(MOST)]


def _varied(complete: Sequence[StoredTrial], space: Space) -> dict[str, BaseDistribution]:
    """Return the parameters that enough COMPLETE trials had, with more than one value."""
    out = {}
    for parameter in space.parameters:
        values = [t.params[parameter.name] for t in complete if parameter.name in t.params]
        if len(values) >= LEAST and any(value != values[0] for value in values):
            out[parameter.name] = parameter.distribution
    return out


def _filled(trials: Sequence[StoredTrial], known: Mapping[str, BaseDistribution], seed: int) -> optuna.Study:
    """Return a new study of the trials, with a random value for every parameter that a trial does not have."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(directions=["minimize"] * len(trials[0].values or ()))
    filled = []
    for trial in trials:
        drawn = {name: from_unit(d, rng.random()) for name, d in known.items()}
        params: dict[str, Any] = {name: trial.params.get(name, value) for name, value in drawn.items()}
        with contextlib.suppress(ValueError):  # a value outside the space, stored by another program
            values = list(trial.values or ())
            filled.append(optuna.trial.create_trial(params=params, distributions=dict(known), values=values))
    study.add_trials(filled)
    return study


def _shares(study: optuna.Study, names: list[str], target: Callable[[FrozenTrial], float]) -> dict[str, float]:
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    return dict(get_param_importances(study, evaluator=evaluator, params=names, target=target))


def _value(index: int) -> Callable[[FrozenTrial], float]:
    def target(trial: FrozenTrial) -> float:
        return float(trial.values[index])

    return target
