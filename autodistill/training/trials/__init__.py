"""Trials: evaluation of one candidate up to a rung, with checkpoints and several devices; retraining and teaching.

``training_spec`` parses a candidate once; everything below takes its loss mix and its recipe.
"""
