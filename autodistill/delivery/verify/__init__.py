"""Verification: retrains members of a front with several seeds and evaluates them on unseen test images.

The result types and the reading of a finished verification are in ``search.results.verified``.
"""
