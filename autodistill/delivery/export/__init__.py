"""Files that other programs can use: safetensors, ONNX, ExecuTorch and others, checked against the trained student.

Also int8 and pruned variants, the model card, and loading what was exported.
"""
