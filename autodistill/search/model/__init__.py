"""The model of the front sampler: a Gaussian process of losses, its inputs, expected hypervolume improvement.

It predicts and scores; ``search.sampler`` proposes.
"""
