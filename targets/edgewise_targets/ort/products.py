"""targets, ort: products with quantized weights as MatMulNBits, the bias inside."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from edgewise.graph import Roles, linears
from edgewise.quantized import BlockQuantized
from edgewise_targets.ort.codes import product_constants
from edgewise_targets.ort.step import Step, become


@dataclass(frozen=True)
class QuantizedProducts(Step):
    """MatMulNBits for every product with a quantized matrix, a tied lm_head too.

    `accuracy_level` 4 quantizes activations to int8, block by block, for the processor's int8 instructions; 0 keeps
    them in float32, four times slower, as a reference.
    """

    name: ClassVar[str] = "ort-quantized-products"

    accuracy_level: Literal[0, 4] = 4

    def rewrite(self, model: ir.Model) -> bool:
        roles, modified = Roles.of(model), False
        for linear in list(linears(model)):
            matrix = linear.matrix
            if linear.node.op_type == "MatMul" and isinstance(matrix, BlockQuantized):
                add = roles.maybe(f"{linear.role}.bias", linear.layer)
                constants = product_constants(model.graph, matrix, linear.name)
                self._quantize(linear.node, matrix, constants, add)
                modified = True
        return modified

    def _quantize(
        self, node: ir.Node, matrix: BlockQuantized, constants: list[ir.Value | None], add: ir.Node | None
    ) -> None:
        product, rows, columns = node.outputs[0], *matrix.dims
        inputs = [node.inputs[0], *constants]
        if add is not None:
            bias = next(value for value in add.inputs if value is not product)
            inputs += [None, bias]
            add.outputs[0].replace_all_uses_with(product)
        form = {"bits": matrix.form.bits, "block_size": matrix.form.block_size}
        become(node, "MatMulNBits", inputs, {"K": columns, "N": rows, "accuracy_level": self.accuracy_level, **form})
