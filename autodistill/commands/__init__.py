"""The commands behind ``autodistill``, by noun: they read arguments, call the rooms, and print. Nothing is decided here.

Every heavy import is inside a function, so that ``autodistill --help`` answers at once.
"""
