"""Storage of a study: its folder, the Optuna database and its lock, the trial log, versions and the survey file.

There is one writer, and every file is written as a whole.
"""
