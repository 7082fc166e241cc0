"""How much of each objective's variance each parameter explains, over the COMPLETE trials of a study.

By functional ANOVA of a random forest (Hutter 2014), Optuna's evaluator. Parameters that only some candidates have are
left out: their share would compare unlike students. So are, for costs that are known before training, parameters that
are no student's: they cannot move a cost, and seem to only because a search pairs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import optuna

if TYPE_CHECKING:
    from autodistill.search.study import Study

LEAST = 4
"""COMPLETE trials below which shares say nothing."""


def importance_shares(study: Study) -> dict[str, dict[str, float]]:
    """Objective to parameter to its share of the variance; empty where the objective does not vary."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    complete = study.optuna.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    common = list(optuna.search_space.intersection_search_space(complete))
    out: dict[str, dict[str, float]] = {}
    for index, objective in enumerate(study.objectives):
        seen = {t.values[objective.name] for t in study.trials() if objective.name in t.values}
        movers = [name for name in common if objective.stage == "trained" or name.startswith("student.")]
        out[objective.name] = {}
        if len(seen) > 1 and movers:
            evaluator = FanovaImportanceEvaluator(seed=0)
            shares = get_param_importances(study.optuna, evaluator=evaluator, params=movers, target=_value(index))
            out[objective.name] = dict(shares)
    return out


def _value(index: int) -> Callable[[optuna.trial.FrozenTrial], float]:
    def target(trial: optuna.trial.FrozenTrial) -> float:
        return float(trial.values[index])

    return target
