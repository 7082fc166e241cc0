"""Samplers, which propose candidates: the front sampler with its initial design, candidate source and local search.

Optuna's samplers can be selected as well. The front sampler's model is in ``search.model``.
"""
