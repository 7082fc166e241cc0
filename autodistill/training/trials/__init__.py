"""Trials: evaluation of one candidate up to a rung, with checkpoints and several devices; retraining and teaching."""
