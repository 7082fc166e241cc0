"""The Optuna dashboard of a study, on the loopback interface and protected by a token, with notes and figures.

Also the TensorBoard log. The dashboard writes notes and figures to the study; trials are added only if a user enqueues
a candidate.
"""
