"""Teaching with a frozen backbone: features computed once per view, and a classifier fitted to them.

It trains no network; ``teach.py`` decides whether one is trained afterwards.
"""
