"""Pictures of a study: the front, parallel coordinates, comparisons, the survey, a diagram of a network.

Static PNGs by matplotlib, interactive figures by plotly. They show numbers and compute none.
"""
