"""targets, ort: the projections of queries, keys and values as one product, where they are stored in one format."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.graph import Linear, Roles, activations, get_facts, linears, state_activations
from edgewise.quantized import BlockQuantized, stack
from edgewise.tensors import Streamed, concatenate, constant, streamed, transpose
from edgewise_targets.step import Step, initializer, insert_before

PARTS = ("attention.q", "attention.k", "attention.v")


@dataclass(frozen=True)
class PackProjections(Step):
    """One product for queries, keys and values. Attention reads it whole, or in parts where a norm comes between."""

    name: ClassVar[str] = "ort-packed-projections"

    def rewrite(self, model: ir.Model) -> bool:
        roles, modified = Roles.of(model), False
        by_role = {(linear.role, linear.layer): linear for linear in linears(model)}
        for index in range(get_facts(model).layers):
            parts = [by_role[role, index] for role in PARTS if (role, index) in by_role]
            if len(parts) == len(PARTS) and (matrix := _stacked(parts)):
                _pack(model.graph, parts, matrix, roles, layer=index)
                modified = True
        return modified


def _stacked(parts: Sequence[Linear]) -> Streamed | None:
    """The matrices one below the other; None where they differ in format, or in what they multiply and how."""
    matrices = [part.matrix for part in parts]
    quantized = [matrix for matrix in matrices if isinstance(matrix, BlockQuantized)]
    inputs = {(part.node.inputs[0], activations(part.node)) for part in parts}
    if len(inputs) > 1 or len({matrix.form for matrix in quantized}) > 1:
        return None
    if not quantized:
        return concatenate(matrices)
    return stack(quantized) if len(quantized) == len(matrices) else None


def _pack(graph: ir.Graph, parts: Sequence[Linear], matrix: Streamed, roles: Roles, *, layer: int) -> None:
    """Put one product, and one bias if any part has one, in the place of three."""
    node = parts[0].node
    name = f"{str(node.name).rpartition('.')[0]}.qkv"
    weight = initializer(graph, transpose(matrix), f"{name}.weight")
    packed = insert_before(node, "MatMul", [node.inputs[0], weight], [name], role="attention.qkv")
    if (kind := activations(node)) and (product := packed[0].producer()):
        state_activations(product, kind)
    biases = [roles.maybe(f"{part.role}.bias", layer) for part in parts]
    if any(biases):
        vectors = [_bias(part, bias) for part, bias in zip(parts, biases, strict=True)]
        bias = initializer(graph, concatenate(vectors), f"{name}.bias")
        packed = insert_before(node, "Add", [*packed, bias], [f"{name}.biased"], role="attention.qkv.bias")
    results = [(bias or part.node).outputs[0] for part, bias in zip(parts, biases, strict=True)]
    attention = roles.one("attention", layer)
    if list(attention.inputs[:3]) == results:
        for index, value in enumerate([*packed, None, None]):
            attention.replace_input_with(index, value)
    else:
        _split(graph, packed[0], parts, results)


def _bias(part: Linear, add: ir.Node | None) -> Streamed:
    """The bias of a projection, zeros where it has none."""
    if add is None:
        return constant(np.zeros(part.matrix.dims[0], np.float32))
    value = next(value for value in add.inputs if value is not part.node.outputs[0])
    assert value is not None
    return streamed(value.const_value)


def _split(graph: ir.Graph, packed: ir.Value, parts: Sequence[Linear], results: Sequence[ir.Value]) -> None:
    name = packed.name
    sizes = np.array([part.matrix.dims[0] for part in parts], np.int64)
    lengths = initializer(graph, constant(sizes), f"{name}.sizes")
    names = [f"{name}.{part.role.rpartition('.')[2]}" for part in parts]
    values = insert_before(parts[0].node, "Split", [packed, lengths], names, {"axis": -1}, role="attention.qkv")
    for result, value in zip(results, values, strict=True):
        result.replace_all_uses_with(value)
