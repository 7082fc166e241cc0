"""Distillation: losses between student and teacher, their mix, and the sources of the teacher's outputs.

Each loss follows its paper. ``loss_mix`` parses the distillation settings of a candidate and calls the chosen losses. A
new loss goes to ``distillation_losses``, a new embedding term to ``embedding_losses``.
"""
