"""Training one network: recipe, optimizer, the loop, averaged weights, statistics of BatchNorm.

It knows nothing of trials, rungs or search.
"""
