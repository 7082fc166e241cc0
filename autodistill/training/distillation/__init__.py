"""Losses between student and teacher, their mix, and where the teacher's outputs come from.

The losses are those of their papers; ``loss_mix`` reads what a candidate asks for.
"""
