"""Objectives and constraints: their names and directions, the constraint language, losses, Pareto arithmetic."""
