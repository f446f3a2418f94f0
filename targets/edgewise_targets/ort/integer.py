"""targets, ort: products of int8 weights and uint8 activations, which are quantized once for all that read them.

    scale = max |x| / 127 of each token;  q = round(x / scale) + 128;  y = (q - 128) @ W * scale_of_row * scale

Activations are unsigned because ONNX Runtime multiplies signed ones 25 times slower (1.31.1, x86-64). A token's scale
depends on nothing but the token, so it does not matter which others are computed with it. What does not multiply
takes a quarter of the time, so each pass over the activations counts: `docs/prefill.md` has the figures.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.bundle.manifest import CPU
from edgewise.errors import LoweringError
from edgewise.graph import Linear, linears
from edgewise.integer import Int8Rows
from edgewise.passes import context_of
from edgewise.quantized import BlockQuantized
from edgewise.target import Target
from edgewise.tensors import Streamed, constant, map_rows, reshape, transpose
from edgewise_targets.step import CONTRIB, Step, become, initializer, insert_before

STEPS = np.float32(127)
TINY = np.float32(1e-28)  # as large as a token's largest is taken to be, where all are zeros


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
                    quantized[x] = _quantize(model.graph, linear.node, x, columns=matrix.dims[1])
                _multiply(model.graph, linear, matrix, *quantized[x])
        return bool(quantized)


def _refuse_other_providers(target: Target | None) -> None:
    """Elsewhere ONNX Runtime has no such kernel, and would do these products on the processor."""
    if target and target.providers[0].name != CPU.name:
        raise LoweringError(
            f"target '{target.name}' runs on {target.providers[0].name}; the dialect 'ort' multiplies int8 activations "
            f"on {CPU.name} only: leave 'w8a8' and 'prefill' out"
        )


def _quantize(graph: ir.Graph, before: ir.Node, x: ir.Value, *, columns: int) -> tuple[ir.Value, ir.Value]:
    """The activations as uint8, and the scale of each token: `[batch, sequence, in]` and `[batch, sequence, 1]`.

    The size of the largest is found from both ends, which spares a pass that writes; and codes stay the same without
    a factor of the whole token.
    """
    axis, step, tiny, _, zero = _constants(graph)
    factor = _take_out_factor(x)
    (highest,) = insert_before(before, "ReduceMax", [x, axis], [f"{x.name}.highest"], {"keepdims": 1})
    (lowest,) = insert_before(before, "ReduceMin", [x, axis], [f"{x.name}.lowest"], {"keepdims": 1})
    (below,) = insert_before(before, "Neg", [lowest], [f"{x.name}.below"])
    (largest,) = insert_before(before, "Max", [highest, below, tiny], [f"{x.name}.largest"])
    (scale,) = insert_before(before, "Mul", [largest, step], [f"{x.name}.scale"])
    (shape,) = insert_before(before, "Shape", [scale], [f"{x.name}.tokens"])
    (zeros,) = insert_before(before, "Expand", [zero, shape], [f"{x.name}.zeros"])
    blocks = {"axis": -1, "block_size": columns}
    (codes,) = insert_before(before, "QuantizeLinear", [x, scale, zeros], [f"{x.name}.codes"], blocks)
    if factor is not None:
        (scale,) = insert_before(before, "Mul", [scale, factor], [f"{x.name}.factored"])
    return codes, scale


def _take_out_factor(x: ir.Value) -> ir.Value | None:
    """The scale of tokens by which one side of an elementwise product was multiplied, and is no longer."""
    product = x.producer()
    if product is None or product.op_type != "Mul":
        return None
    for place, side in enumerate(product.inputs):
        scaled = side.producer() if side else None
        if side and scaled and is_scaled_product(scaled) and len(side.uses()) == 1:
            rows, factor = scaled.inputs
            product.replace_input_with(place, rows)
            return factor
    return None


def is_scaled_product(node: ir.Node) -> bool:
    """Whether it multiplies the rows of an integer product by the scale of each token."""
    rows = node.inputs[0].producer() if node.op_type == "Mul" and node.inputs[0] else None
    return rows is not None and rows.op_type == "MatMulIntegerToFloat"


def _multiply(graph: ir.Graph, linear: Linear, matrix: BlockQuantized, codes: ir.Value, scale: ir.Value) -> None:
    """The product, scaled by the rows of the matrix as it leaves int32, then by the tokens."""
    node, name = linear.node, linear.name
    rows, _ = matrix.dims
    scales = initializer(graph, reshape(matrix.scales, (rows,)), f"{name}.scales")
    if linear.stored_by_rows:  # as the embedding reads it: ONNX Runtime turns it once
        table = initializer(graph, signed(matrix), f"{name}.int8")
        (weights,) = insert_before(node, "Transpose", [table], [f"{node.name}.int8"], role=linear.role)
    else:
        weights = initializer(graph, transpose(signed(matrix)), f"{name}.int8")
    *_, one, zero = _constants(graph)
    inputs = [codes, weights, one, scales, zero]
    (product,) = insert_before(
        node, "MatMulIntegerToFloat", inputs, [f"{node.name}.rows"], role=linear.role, domain=CONTRIB
    )
    become(node, "Mul", [product, scale], domain="")


def _constants(graph: ir.Graph) -> list[ir.Value]:
    """The last axis; a step of the codes; the least size; scale and zero point of what is in steps already."""
    values = {
        "axis": np.array([-1], np.int64),
        "step": 1 / STEPS,
        "tiny": TINY,
        "one": np.float32(1),
        "zero": np.uint8(128),
    }
    return [initializer(graph, constant(np.asarray(value)), f"w8a8.{name}") for name, value in values.items()]


def signed(matrix: BlockQuantized) -> Streamed:
    """The codes around 0: int8 `[rows, columns]`."""
    flat = reshape(matrix.packed, matrix.dims)
    return map_rows(flat, lambda codes: (codes ^ np.uint8(128)).view(np.int8), dtype=ir.DataType.INT8)
