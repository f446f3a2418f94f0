"""targets, static: products with quantized weights as MatMulNBits, in the formats that QNN keeps on the accelerator."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.graph import Linear, linears
from edgewise.quantized import BlockQuantized
from edgewise.tensors import Streamed
from edgewise_targets.codes import product_constants
from edgewise_targets.step import Step, become

BITS, BLOCK_SIZES = (4, 8), (32, 64, 128)
CHOICE = "bits 4, block_size 32"


@dataclass(frozen=True)
class QuantizedProducts(Step):
    """MatMulNBits for every product with a quantized matrix, a tied lm_head too; an embedding becomes floats again.

    Activations stay floats: float16 on the accelerator.
    """

    name: ClassVar[str] = "static-products"

    def rewrite(self, model: ir.Model) -> bool:
        found = [(linear, linear.matrix) for linear in linears(model)]
        quantized = [(linear, matrix) for linear, matrix in found if isinstance(matrix, BlockQuantized)]
        for linear, matrix in quantized:
            if linear.node.op_type == "MatMul":
                _refuse_unknown(linear, matrix)
                _multiply(model.graph, linear, matrix)
        for linear, matrix in quantized:
            if linear.node.op_type == "Gather":
                linear.replace(_floats(matrix))
        return bool(quantized)


def _floats(matrix: BlockQuantized) -> Streamed:
    """The dequantized values; equal in all graphs of a bundle, so that they are written once."""
    return Streamed(matrix.dims, matrix.dtype, matrix.read, name=matrix.name, storage=("floats", matrix.storage))


def _multiply(graph: ir.Graph, linear: Linear, matrix: BlockQuantized) -> None:
    rows, columns = matrix.dims
    attributes = {"K": columns, "N": rows, "bits": matrix.form.bits, "block_size": matrix.form.block_size}
    constants = product_constants(graph, matrix, linear.name)
    become(linear.node, "MatMulNBits", [linear.node.inputs[0], *constants], attributes)


def _refuse_unknown(linear: Linear, matrix: BlockQuantized) -> None:
    """What QNN would leave to the processor, which does not take it either."""
    form, columns = matrix.form, matrix.dims[1]
    if form.bits not in BITS or form.block_size not in BLOCK_SIZES:
        raise LoweringError(f"'{linear.name}': {form} is not multiplied on this accelerator; choose {CHOICE}")
    if columns % form.block_size:
        raise LoweringError(
            f"'{linear.name}': {columns} columns are no whole blocks of {form.block_size}, which this accelerator "
            f'needs; choose {CHOICE}, or leave it in floats by a rule: {{ role = "{linear.role}", keep = true }}'
        )
