"""The deployed forms of a student: fused, ONNX, int8 and fp16, pruned, as a timm folder; and runtimes that run them."""
