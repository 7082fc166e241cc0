"""Training of one network: recipe, optimizer, training loop, averaged weights, BatchNorm statistics.

It is independent of trials, rungs and search.
"""
