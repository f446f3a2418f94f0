"""exporters: decoder-only language models, by families that are data.

A plugin adds a family with a `Family` of its own, on a subclass that it registers as an exporter:

    class Granite(Decoder):
        name = "granite"
        families = {"granite": Family("granite", ...)}
"""

from edgewise_exporters.decoder.exporter import Decoder
from edgewise_exporters.decoder.family import Family

__all__ = ["Decoder", "Family"]
