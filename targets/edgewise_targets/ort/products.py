"""targets, ort: products with quantized weights as MatMulNBits, the bias inside."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from edgewise.graph import FLOAT, Linear, Roles, activations, linears, mark
from edgewise.quantized import BlockQuantized
from edgewise_targets.codes import product_constants
from edgewise_targets.step import Step, become


@dataclass(frozen=True)
class QuantizedProducts(Step):
    """MatMulNBits for every product with a quantized matrix, a tied lm_head too.

    `accuracy_level` 4 quantizes activations to int8, block by block, for the processor's int8 instructions; 0 keeps
    them in float32, four times slower, as a reference, and where a product states that it needs them.
    """

    name: ClassVar[str] = "ort-quantized-products"

    accuracy_level: Literal[0, 4] = 4

    def rewrite(self, model: ir.Model) -> bool:
        roles, modified = Roles.of(model), False
        for linear in list(linears(model)):
            matrix = linear.matrix
            if linear.node.op_type == "MatMul" and isinstance(matrix, BlockQuantized):
                constants = product_constants(model.graph, matrix, linear.name)
                add = roles.maybe(f"{linear.role}.bias", linear.layer)
                level = 0 if activations(linear.node) == FLOAT else self.accuracy_level
                _multiply(linear, matrix, constants, add, accuracy_level=level)
                modified = True
        return modified


def _multiply(
    linear: Linear,
    matrix: BlockQuantized,
    constants: Sequence[ir.Value | None],
    add: ir.Node | None,
    *,
    accuracy_level: int,
) -> None:
    """Make one operator of a product and its bias, in the place of the last of them."""
    node, (rows, columns) = linear.node, matrix.dims
    product = node.outputs[0]
    inputs = [node.inputs[0], *constants]
    last = node
    if add is not None and product in add.inputs:
        inputs += [None, *(value for value in add.inputs if value is not product)]
        last = mark(add, linear.role, linear.layer)
        last.name = node.name
    attributes = {
        "K": columns,
        "N": rows,
        "bits": matrix.form.bits,
        "block_size": matrix.form.block_size,
        "accuracy_level": accuracy_level,
    }
    become(last, "MatMulNBits", inputs, attributes)
