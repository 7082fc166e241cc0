"""The passive study: it decides what is trained next and records the results. It never starts work by itself.

The scheduler orders paused and new trials, the rung rules compare them, and ``spending`` counts the budget used.
"""
