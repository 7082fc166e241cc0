"""Distillation: losses between student and teacher, their mix, and the sources of the teacher's outputs.

Each loss follows its paper. ``loss_mix`` parses the distillation settings of a candidate.
"""
