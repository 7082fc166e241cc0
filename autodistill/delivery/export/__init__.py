"""Export: files for other programs (safetensors, ONNX and others), checked against the trained student.

Also int8 and pruned variants, the model card, and the loading of exported students.
"""
