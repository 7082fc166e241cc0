"""Objectives and constraints: names and directions, the expression language, Pareto arithmetic.

``values_as_losses`` changes signs of objective values, so that smaller is better. Losses that students are trained with
are in ``training/distillation``.
"""
