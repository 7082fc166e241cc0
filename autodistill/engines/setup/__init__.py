"""From a study file to a study that can run: names checked, lengths chosen by the budget, teacher and survey ready.

Also ``--dry-run``: what a search would take.
"""
