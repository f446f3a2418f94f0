"""exporters, optimum: what optimum-onnx exports, in a Python of its own, becomes a graph like any other."""

from edgewise_exporters.optimum.exporter import Optimum

__all__ = ["Optimum"]
