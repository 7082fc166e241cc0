"""The Optuna dashboard of a study, on the loopback interface behind a token, with notes and pictures for each trial.

Also the TensorBoard log. It changes a study only where a user enqueues a candidate.
"""
