"""Times before a search: a few students and the teacher are timed, and the length of trainings follows from the budget.

It also estimates what a search would take, for ``--dry-run``. Nothing here trains a trial.
"""
