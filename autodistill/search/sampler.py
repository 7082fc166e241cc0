"""Samplers by name (placeholder until the front-aware sampler lands)."""

import optuna


def build(name, space, *, seed, objectives, constraints=(), costs=None, pool=()):
    return {
        "random": optuna.samplers.RandomSampler,
        "front": optuna.samplers.RandomSampler,
        "nsga2": optuna.samplers.NSGAIISampler,
        "tpe": optuna.samplers.TPESampler,
    }[name](seed=seed)
