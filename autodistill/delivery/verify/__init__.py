"""Retrains members of a front with several seeds, tests them on images that no trial has seen, and judges the front.

The values and the reading of a finished verification are in ``search.results.verified``.
"""
