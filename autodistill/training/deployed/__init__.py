"""The form in which a student ships: BatchNorm folded, ONNX, int8, pruned, saved as timm saves."""
