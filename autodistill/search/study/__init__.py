"""The passive study: it decides what is trained next, keeps the books and never starts work by itself.

The scheduler orders paused and new trials, rung rules compare them, ``spending`` counts the budget.
"""
