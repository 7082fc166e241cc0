"""Data sources that are tables: each row has a picture and its label. ``rows.py`` arranges them as class folders."""
