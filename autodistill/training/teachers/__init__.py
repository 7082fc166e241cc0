"""Teachers of every kind: timm, files, folders, ONNX, functions, stored logits. Loaded, checked, asked.

Their answers are kept in ``teachers.cache``.
"""
