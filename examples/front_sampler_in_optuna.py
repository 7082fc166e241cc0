"""Example of the front sampler in a plain Optuna study, without other parts of autodistill.

Run it:  python examples/front_sampler_in_optuna.py
It takes a few seconds, trains nothing and writes nothing.

The sampler suits any study with an objective that is known before the work begins (a size, a price, a latency from a
table). It models only the unknown objectives, and computes the expected gain of the front in closed form. Here a
formula replaces the training. Optuna's TPE gets the same number of trials, forty, for comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna

import autodistill as ad
from autodistill.search.objectives.pareto import hypervolume

SPACE = {
    "student": {"width": [8, 16, 32, 64, 128], "depth": [1, 2, 3, 4]},
    "train": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}},
}
TRIALS = 40


def costs(student: Mapping[str, Any]) -> dict[str, float]:
    """Return the costs that are known before any work."""
    return {"params": 9.0 * student["width"] ** 2 * student["depth"]}


def train(width: int, depth: int, lr: float) -> float:
    """Return an accuracy, instead of a real training."""
    tuning = math.exp(-((math.log10(lr) + 2) ** 2))
    return (1 - 0.4 * (costs({"width": width, "depth": depth})["params"] / 500) ** -0.3) * (0.7 + 0.3 * tuning)


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """Evaluate a trial. Parameters have the dotted names of the space."""
    width = trial.suggest_categorical("student.width", SPACE["student"]["width"])
    depth = trial.suggest_categorical("student.depth", SPACE["student"]["depth"])
    lr = trial.suggest_float("train.lr", 1e-4, 1e-1, log=True)
    return train(width, depth, lr), costs({"width": width, "depth": depth})["params"]


def volume(study: optuna.Study) -> float:
    """Return the hypervolume of accuracy and the logarithm of the parameters, over the whole range of both."""
    losses = [(1 - t.values[0], math.log(t.values[1] / 576) / math.log(1024)) for t in study.trials]
    return hypervolume(np.array(losses), [1.0, 1.0])


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = {
        "front": ad.FrontSampler(SPACE, costs=costs, seed=0),
        "TPE": optuna.samplers.TPESampler(seed=0),
    }
    for name, sampler in samplers.items():
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        study.optimize(objective, n_trials=TRIALS)
        print(f"{name:>5}: {len(study.best_trials)} on the front, hypervolume {volume(study):.4f}")


if __name__ == "__main__":
    main()
