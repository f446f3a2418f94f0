"""targets, ort: the biases of the experts of a layer, as fused operators read them."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgewise.graph import Linear, role
from edgewise.tensors import Stacked, Streamed, concatenate, constant, streamed
from edgewise_targets.ort.interleave import interleave
from edgewise_targets.step import initializer

Biases = tuple[ir.Value | None, ir.Value | None]


def stacked_biases(graph: ir.Graph, parts: Sequence[Sequence[Linear]], name: str) -> Biases:
    """Of gate and up in turns, `[experts, 2 * inner]`, and of down, `[experts, hidden]`; None where none has one."""
    gates, ups, downs = ([_vector(linear) for linear in group] for group in parts)
    wide, down = None, None
    if any([*gates, *ups]):
        pairs = zip(_filled(gates, parts[0]), _filled(ups, parts[1]), strict=True)
        wide = _stack(graph, [interleave(*pair) for pair in pairs], f"{name}.gate_up.bias")
    if any(downs):
        down = _stack(graph, _filled(downs, parts[2]), f"{name}.down.bias")
    return wide, down


def _vector(linear: Linear) -> Streamed | None:
    """The bias of a product, if it has one."""
    product = linear.node.outputs[0]
    for node in product.consumers():
        if role(node) == f"{linear.role}.bias":
            (value,) = (value for value in node.inputs if value is not None and value is not product)
            return streamed(value.const_value)
    return None


def _filled(vectors: Sequence[Streamed | None], linears: Sequence[Linear]) -> list[Streamed]:
    """Zeros where there is none."""
    return [
        constant(np.zeros(linear.matrix.dims[0], np.float32)) if vector is None else vector
        for vector, linear in zip(vectors, linears, strict=True)
    ]


def _stack(graph: ir.Graph, vectors: Sequence[Streamed], name: str) -> ir.Value:
    return initializer(graph, Stacked(concatenate(vectors), vectors[0].dims[0]), name)
