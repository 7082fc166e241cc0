"""Set-up of a study: checks names, chooses the length of trainings by the budget, prepares teacher and survey.

It also estimates what a search would take, for ``--dry-run``.
"""
