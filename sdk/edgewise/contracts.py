"""sdk: what an exporter is. (A pass: `edgewise.passes`; a target: `edgewise.target`; a search: `edgewise.search`.)"""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Offer:
    """What an exporter would make of a checkpoint, by its configuration alone."""

    task: str
    graph: str  # `canonical`, or of which form
    cache: str = "none"  # of keys and values: `in place`, `appended`
    lacks: str = ""  # what has to be there first, and is not


@dataclass(frozen=True)
class Refusal:
    """Why an exporter does not take a checkpoint, in a line."""

    reason: str
    near: bool = False  # it knows models of that type, and something else is in the way


@runtime_checkable
class Appraiser(Protocol):
    """An exporter that says what it would give, or why nothing. One with `fallback = True` comes after all others."""

    def appraise(self, checkpoint: "Checkpoint") -> Offer | Refusal:
        """Reads the configuration only, as `supports`, which is true where this gives an offer."""
        ...


@runtime_checkable
class CheckpointWriter(Protocol):
    """An exporter that knows the way back, too."""

    def checkpoint(self, model: "ir.Model", source: "Checkpoint") -> "Checkpoint":
        """The canonical graph of `source`, as passes have left it, as a checkpoint. GraphError for what is none."""
        ...
