"""exporters: encoder-decoders as others have traced them: three graphs that become one."""

from edgewise_exporters.crossed.adopt import join

__all__ = ["join"]
