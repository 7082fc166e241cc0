"""One candidate from its start to a rung: evaluation with checkpoints, several devices, retraining, teaching."""
