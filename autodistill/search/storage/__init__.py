"""How a study is kept: its folder, the Optuna database and its lock, the trial log, versions, the survey file.

One writer; every file is written as a whole.
"""
