"""Figures of a study: the front, parallel coordinates, comparisons, the survey, a diagram of a network.

Static PNGs are drawn with matplotlib, interactive figures with plotly. This package draws results and computes none.
"""
