"""The commands behind ``autodistill``, by noun: they read arguments, call the rooms and print; they decide nothing.

Every heavy import is inside a function, so that ``autodistill --help`` answers at once.
"""
