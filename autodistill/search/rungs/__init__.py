"""Rungs (epochs at which trials are compared): levels, comparisons, losses by rung, predicted time of an epoch.

These are arithmetic on stored values. ``Scheduler.after`` in ``search/study/scheduler.py`` decides whether a trial that
has just reported continues or is paused.
"""
