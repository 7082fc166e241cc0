"""Reading arguments and showing results in a terminal: tables, column widths, JSON, errors in words.

It computes nothing about a study; the commands ask the other rooms and hand values to it.
"""
