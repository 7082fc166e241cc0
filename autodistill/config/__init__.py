"""The study file: its keys, their types and defaults; all problems of a file are reported in one error.

Only keys and values are checked here. ``engines.setup.check_names`` checks whether a data source or a teacher exists.
"""
