"""targets, ort: the dialect of ONNX Runtime: its fused operators, and a cache that is written in place."""
