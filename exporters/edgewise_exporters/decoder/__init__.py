"""exporters: decoder-only language models, by families that are data.

A plugin adds a family on a subclass of its own: docs/families.md shows one.
"""

from edgewise_exporters.decoder.exporter import Decoder
from edgewise_exporters.decoder.family import Family

__all__ = ["Decoder", "Family"]
