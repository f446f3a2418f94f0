"""sdk: how large a model is, by the part that its weights play: from shapes alone, no weight is read."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgewise.floats import FORMATS
from edgewise.graph import role
from edgewise.quantized import BlockQuantized
from edgewise.tensors import Streamed, Transposed, storage, streamed

CHECKPOINT_BYTES = "edgewise.checkpoint_bytes"  # in the `meta` of a tensor: its bytes there, where they are no floats


@dataclass(frozen=True)
class Size:
    """How much a part of a model is."""

    parameters: int = 0
    bytes: int = 0

    def __add__(self, other: "Size") -> "Size":
        return Size(self.parameters + other.parameters, self.bytes + other.bytes)


def sizes_of(*models: ir.Model, stored: Mapping[str, Streamed] | None = None, halves: bool = False) -> dict[str, Size]:
    """Parameters and bytes by part: embedding, attention, mlp, norm, lm_head; tables are what is no weight.

    Bytes are those of the graph when it is written, or of several beside each other; with `stored`, those that the
    checkpoint's tensors have; with `halves`, those of a binary that a compiler has made of it, which has floats in 16
    bits.
    """
    width = _mean_width(stored) if stored else None
    written = halved_bytes if halves else stored_bytes
    parts: dict[str, Size] = {}
    for value in distinct(*models):
        part, elements = _part(value), streamed(value.const_value).size
        count = written(value) if width is None else _checkpoint_bytes(value, width)
        parts[part] = parts.get(part, Size()) + Size(0 if part == "tables" else elements, count)
    if stored:
        parts.pop("tables", None)
    return parts


def bytes_beside(model: ir.Model, other: ir.Model) -> int:
    """Bytes that a graph takes when another is written already: those of its own."""
    there = {storage(value.const_value) for value in distinct(other) if value.const_value is not None}
    own = [v for v in distinct(model) if v.const_value is not None and storage(v.const_value) not in there]
    return sum(map(stored_bytes, own))


def total(parts: Mapping[str, Size]) -> Size:
    return sum(parts.values(), Size())


def distinct(*models: ir.Model) -> Iterator[ir.Value]:
    """The initializers of graphs; of several that are the same bytes, the first."""
    seen = set()
    for value in (value for model in models for value in model.graph.initializers.values()):
        if value.const_value is not None and storage(value.const_value) not in seen:
            seen.add(storage(value.const_value))
            yield value


def stored_bytes(value: ir.Value) -> int:
    """Bytes of an initializer when it is written; a quantized matrix counts with its codes."""
    tensor = _as_stored(value)
    return tensor.stored_bytes if isinstance(tensor, BlockQuantized) else tensor.nbytes


def halved_bytes(value: ir.Value) -> int:
    """The same with floats in 16 bits, and a table that is looked up and multiplied with twice: for each of the two."""
    tensor = _as_stored(value)
    copies = max(1, len({node.op_type == "Gather" for node in value.consumers()}))
    return copies * (2 * tensor.size if tensor.dtype in FORMATS else stored_bytes(value))


def _checkpoint_bytes(value: ir.Value, width: float) -> int:
    """Bytes of an initializer in its checkpoint, whose floats take `width` each."""
    tensor = _as_stored(value)
    return int(tensor.meta.get(CHECKPOINT_BYTES, round(tensor.size * width)))


def _as_stored(value: ir.Value) -> Streamed:
    tensor = streamed(value.const_value)
    return tensor.base if isinstance(tensor, Transposed) else tensor


def _part(value: ir.Value) -> str:
    """What an initializer is for, by the role of the first node that takes it."""
    roles = [name for node in value.consumers() if (name := role(node))]
    if not roles or str(value.name).startswith("rotary.") or value.dtype == ir.DataType.INT64:
        return "tables"
    return "norm" if roles[0].endswith("norm") else roles[0].partition(".")[0]


def _mean_width(tensors: Mapping[str, Streamed]) -> float:
    """Bytes of a float in a checkpoint."""
    floats = [tensor for tensor in tensors.values() if tensor.dtype in FORMATS]
    elements = sum(math.prod(tensor.dims) for tensor in floats)
    return sum(tensor.nbytes for tensor in floats) / max(1, elements)
