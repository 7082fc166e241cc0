"""Proposes candidates: the front sampler with its initial design, candidate source and local search; other samplers.

The model behind it is in ``search.model``.
"""
