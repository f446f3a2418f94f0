"""targets, ort: products of int8 weights and uint8 activations, which are quantized once for all that read them.

    scale = max |x| / 127 of each token;  q = round(x / scale) + 128;  y = (q - 128) @ W * scale_of_row * scale

Activations are unsigned because ONNX Runtime multiplies signed ones 25 times slower (1.31.1, x86-64). A token's scale
depends on nothing but the token, so it does not matter which others are computed with it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.graph import Linear, linears
from edgewise.integer import Int8Rows
from edgewise.passes import context_of
from edgewise.quantized import BlockQuantized
from edgewise.target import Target
from edgewise.tensors import Streamed, constant, map_rows, reshape, transpose
from edgewise_targets.step import CONTRIB, Step, become, initializer, insert_before

CPU = "CPUExecutionProvider"
STEPS = np.float32(127)
TINY = np.float32(1e-30)  # the scale of a token that is all zeros


@dataclass(frozen=True)
class IntegerProducts(Step):
    """MatMulIntegerToFloat for every product with a matrix of int8 rows."""

    name: ClassVar[str] = "ort-integer-products"

    def rewrite(self, model: ir.Model) -> bool:
        quantized: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        for linear in list(linears(model)):
            matrix = linear.matrix
            if isinstance(matrix, BlockQuantized) and isinstance(matrix.form, Int8Rows):
                x = linear.node.inputs[0]
                assert x is not None
                _refuse_other_providers(context_of(model).target)
                if x not in quantized:
                    quantized[x] = _quantize(model.graph, linear.node, x)
                _multiply(model.graph, linear, matrix, *quantized[x])
        return bool(quantized)


def _refuse_other_providers(target: Target | None) -> None:
    """Elsewhere ONNX Runtime has no such kernel, and would do these products on the processor."""
    if target and target.providers[0].name != CPU:
        raise LoweringError(
            f"target '{target.name}' runs on {target.providers[0].name}; the dialect 'ort' multiplies int8 activations "
            f"on {CPU} only: leave 'w8a8' and 'prefill' out"
        )


def _quantize(graph: ir.Graph, before: ir.Node, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The activations as uint8, and the scale of each token: `[batch, sequence, in]` and `[batch, sequence, 1]`."""
    axis, step, tiny, one, zero = _constants(graph)
    (size,) = insert_before(before, "Abs", [x], [f"{x.name}.size"])
    (largest,) = insert_before(before, "ReduceMax", [size, axis], [f"{x.name}.largest"], {"keepdims": 1})
    (exact,) = insert_before(before, "Mul", [largest, step], [f"{x.name}.step"])
    (scale,) = insert_before(before, "Max", [exact, tiny], [f"{x.name}.scale"])
    (steps,) = insert_before(before, "Div", [x, scale], [f"{x.name}.steps"])
    (codes,) = insert_before(before, "QuantizeLinear", [steps, one, zero], [f"{x.name}.codes"])
    return codes, scale


def _multiply(graph: ir.Graph, linear: Linear, matrix: BlockQuantized, codes: ir.Value, scale: ir.Value) -> None:
    """The product, scaled by the rows of the matrix as it leaves int32, then by the tokens."""
    node, name = linear.node, linear.name
    rows, _ = matrix.dims
    weights = initializer(graph, transpose(_signed(matrix)), f"{name}.int8")
    scales = initializer(graph, reshape(matrix.scales, (rows,)), f"{name}.scales")
    *_, one, zero = _constants(graph)
    inputs = [codes, weights, one, scales, zero]
    (product,) = insert_before(
        node, "MatMulIntegerToFloat", inputs, [f"{node.name}.rows"], role=linear.role, domain=CONTRIB
    )
    become(node, "Mul", [product, scale], domain="")


def _constants(graph: ir.Graph) -> list[ir.Value]:
    """The last axis; a step of the codes; the least scale; scale and zero point of what is in steps already."""
    values = {
        "axis": np.array([-1], np.int64),
        "step": 1 / STEPS,
        "tiny": TINY,
        "one": np.float32(1),
        "zero": np.uint8(128),
    }
    return [initializer(graph, constant(np.asarray(value)), f"w8a8.{name}") for name, value in values.items()]


def _signed(matrix: BlockQuantized) -> Streamed:
    """The codes around 0: int8 `[rows, columns]`."""
    flat = reshape(matrix.packed, matrix.dims)
    return map_rows(flat, lambda codes: (codes ^ np.uint8(128)).view(np.int8), dtype=ir.DataType.INT8)
