"""exporters, decoder: matrices of experts that a checkpoint stores together, a stack of them in one tensor.

    rows       gate_up_proj  [experts, 2 * inner, hidden], the rows of gate before those of up
               down_proj     [experts, hidden, inner]
    columns    gate_up_proj  [experts, hidden, 2 * inner], columns of gate and of up in turns
               down_proj     [experts, inner, hidden]
               and a bias of each, in the same order: gate_up_proj_bias, down_proj_bias

Columns may be packed as MXFP4, which turns them into rows again: `packed/mxfp4.py`.
"""

import numpy as np

from edgewise.tensors import Streamed, cast, element, transpose
from edgewise_exporters.decoder.builder import FLOAT
from edgewise_exporters.decoder.layer import Layer
from edgewise_exporters.decoder.packed.matrix import Matrix
from edgewise_exporters.decoder.packed.mxfp4 import BYTES, CODES, blocks_of, unpacked

FUSED = "mlp.experts"  # where transformers keeps the experts of a layer as two stacks, whatever the family

Weight = tuple[Matrix, Streamed | None]  # and the bias


def are_stacked(layer: Layer) -> bool:
    return f"{layer.path}{FUSED}.gate_up_proj" in layer.weights.tensors


def by_rows(layer: Layer, role: str, number: int, count: int) -> Weight:
    """A matrix of expert `number` of so many."""
    size, hidden, path = layer.architecture.expert_size, layer.architecture.facts.hidden_size, f"{layer.path}{FUSED}"
    if role == "expert.down":
        stack, rows = layer.weights.take_stack(f"{path}.down_proj", count, hidden, size), (0, hidden)
    else:
        stack = layer.weights.take_stack(f"{path}.gate_up_proj", count, 2 * size, hidden)
        rows = (size, 2 * size) if role == "expert.up" else (0, size)
    return Matrix(cast(element(stack, number, *rows), FLOAT)), None


def by_columns(layer: Layer, role: str, number: int, count: int) -> Weight:
    """A matrix of expert `number` of so many, and its bias."""
    size, hidden, weights = layer.architecture.expert_size, layer.architecture.facts.hidden_size, layer.weights
    outputs, inputs = (2 * size, hidden) if role != "expert.down" else (hidden, size)
    name = f"{layer.path}{FUSED}.{'down' if role == 'expert.down' else 'gate_up'}_proj"
    own = slice(None) if role == "expert.down" else slice(int(role == "expert.up"), None, 2)
    bias = _part(weights.take_stack(f"{name}_bias", count, outputs), number, own)
    if f"{name}_blocks" in weights.tensors:
        shape = (count, outputs, blocks_of(inputs))
        blocks = weights.take_stack(f"{name}_blocks", *shape, BYTES, dtypes=CODES)
        scales = weights.take_stack(f"{name}_scales", *shape, dtypes=CODES)
        return Matrix(unpacked(blocks, scales, number, own, inputs)), bias
    return Matrix(transpose(cast(_columns(weights.take_stack(name, count, inputs, outputs), number, own), FLOAT))), bias


def _columns(stack: Streamed, number: int, own: slice) -> Streamed:
    """Some columns of a matrix of a stack of them, as it is stored."""
    _, rows, columns = stack.dims

    def read(start: int, stop: int) -> np.ndarray:
        return stack.read(number, number + 1)[0, start:stop, own]

    storage = ("columns", number, own.start, stack.storage)
    return Streamed((rows, len(range(columns)[own])), stack.dtype, read, storage=storage)


def _part(stack: Streamed, number: int, own: slice) -> Streamed:
    """A vector of a stack of them, in float32."""
    count = len(range(stack.dims[1])[own])

    def read(start: int, stop: int) -> np.ndarray:
        return stack.read(number, number + 1)[0, own][start:stop]

    return cast(Streamed((count,), stack.dtype, read), FLOAT)
