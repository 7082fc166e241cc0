"""Results of a study, as values: front, members, pick and knee, verified figures, gain of distillation, waste.

Nothing here trains or draws. ``Front`` and ``FrontMember`` have short methods that forward to ``delivery``.
"""
