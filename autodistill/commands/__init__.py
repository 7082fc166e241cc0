"""The commands of ``autodistill``, one module each: they read arguments, call the other rooms, and print.

Every heavy import is inside a function, so that ``autodistill --help`` answers at once.
"""
