"""Objectives and constraints: names and directions, the expression language, losses, Pareto arithmetic."""
