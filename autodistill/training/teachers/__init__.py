"""Teachers of every kind: timm networks, weight files, folders, ONNX files, functions and stored logits.

This package loads, checks and runs them; ``teachers.cache`` stores their outputs.
"""
