"""exporters, foreign: decoder graphs that others have exported, made ready for our passes, targets and runner."""

from edgewise_exporters.foreign.adopt import adopt

__all__ = ["adopt"]
