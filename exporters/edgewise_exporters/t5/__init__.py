"""exporters: encoder-decoders of the T5 kind (arXiv 1910.10683), built without torch."""

from edgewise_exporters.t5.exporter import T5

__all__ = ["T5"]
