"""sdk: what an exporter is. (A pass: `edgewise.passes`; a target: `edgewise.target`; a search: `edgewise.search`.)"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgewise.checkpoint import Checkpoint


class Exporter(Protocol):
    """Turns a checkpoint into the canonical graph. Its class is made without arguments."""

    name: str

    def supports(self, checkpoint: "Checkpoint") -> bool:
        """Whether this exporter describes that kind of checkpoint; reads its configuration only."""
        ...

    def export(self, checkpoint: "Checkpoint") -> "ir.Model":
        """The canonical graph, its weights lazy views of the checkpoint. Raises CheckpointError."""
        ...


@runtime_checkable
class CheckpointWriter(Protocol):
    """An exporter that knows the way back, too."""

    def checkpoint(self, model: "ir.Model", source: "Checkpoint") -> "Checkpoint":
        """The canonical graph of `source`, as passes have left it, as a checkpoint. GraphError for what is none."""
        ...
