"""Reading of arguments and printing of results: tables, column widths, JSON, messages.

It computes nothing about a study: the commands get values from the other rooms and pass them to it.
"""
