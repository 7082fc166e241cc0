"""The study file: its keys, their types and defaults, and every problem of a file in one error.

It knows names and values only. Whether a data source or a teacher exists is checked by ``engines.setup.check_names``.
"""
