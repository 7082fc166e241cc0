"""The model of the front sampler: a Gaussian process of losses, its inputs and expected hypervolume improvement.

It predicts and scores candidates; ``search.sampler`` proposes them.
"""
