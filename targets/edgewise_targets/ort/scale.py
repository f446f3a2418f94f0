"""targets, ort: queries that come scaled, so that attention multiplies its scores by 1.

ONNX Runtime's product of one query with many keys is twice as fast where its factor is 1 (onnxruntime 1.31.1, x86-64,
with ORT_GQA_DISABLE_FLASH_ATTENTION=1). Rotation is linear, so the factor may as well be in the weights.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.graph import Linear, Roles, get_facts, linears
from edgewise.quantized import Block, BlockQuantized
from edgewise.tensors import Streamed, map_rows, streamed
from edgewise_targets.ort.head_norms import WEIGHTS
from edgewise_targets.step import Step


@dataclass(frozen=True)
class ScaleQueries(Step):
    """The factor of attention scores in the weights that queries come from: their norm, or their product and bias.

    Where attention norms queries itself, a factor in what comes before would be undone, and stays where it is.
    """

    name: ClassVar[str] = "ort-scaled-queries"

    def rewrite(self, model: ir.Model) -> bool:
        roles, modified = Roles.of(model), False
        products = {linear.node: linear for linear in linears(model)}
        for index in range(get_facts(model).layers):
            attention = roles.one("attention", index)
            factor = np.float32(attention.attributes.get_float("scale", 1.0))
            normed_inside = any(attention.inputs[place] for place in WEIGHTS if place < len(attention.inputs))
            weights = {} if factor == 1 or normed_inside else _weights(attention.inputs[0], roles, index)
            for node, value in weights.items():
                _scale(value, products.get(node), factor)
            if weights:
                attention.attributes.add(ir.AttrFloat32("scale", 1.0))
                modified = True
        return modified


def _weights(query: ir.Value | None, roles: Roles, layer: int) -> dict[ir.Node, ir.Value]:
    """The constants that queries are proportional to, by the nodes that read them; none where a layer shares them."""
    norm, bias, product = (roles.maybe(f"attention.q{part}", layer) for part in (".norm", ".bias", ""))
    nodes = [norm] if norm else [node for node in (bias, product) if node]
    if not nodes or query is not nodes[0].outputs[0]:
        return {}
    constants = [[value for value in node.inputs if value is not None and value.is_initializer()] for node in nodes]
    if any(len(values) != 1 or len(values[0].uses()) != 1 for values in constants):
        return {}
    return {node: value for node, (value,) in zip(nodes, constants, strict=True)}


def _scale(value: ir.Value, linear: Linear | None, factor: np.float32) -> None:
    if linear is not None:
        linear.replace(scaled(linear.matrix, factor))
    else:
        value.const_value = scaled(streamed(value.const_value), factor)


def scaled(tensor: Streamed, factor: np.float32) -> Streamed:
    """A tensor times a number; of a quantized matrix the scales are, and its codes stay."""
    if not isinstance(tensor, BlockQuantized):
        return map_rows(tensor, lambda rows: rows * factor)

    def quantized(start: int, stop: int) -> Block:
        block = tensor.quantized(start, stop)
        return replace(block, scales=block.scales * factor)

    return BlockQuantized(tensor.dims, tensor.form, quantized, name=tensor.name)
