"""targets, ort: rows of a quantized embedding, dequantized as they are read."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.graph import Linear, linears
from edgewise.integer import Int8Rows
from edgewise.quantized import BlockQuantized
from edgewise.tensors import constant, reshape
from edgewise_targets.codes import table_constants
from edgewise_targets.ort.integer import signed
from edgewise_targets.step import CONTRIB, Step, become, initializer, insert_before


@dataclass(frozen=True)
class QuantizedEmbedding(Step):
    """GatherBlockQuantized for an embedding whose table is quantized in blocks; its parts, for one of int8 rows."""

    name: ClassVar[str] = "ort-quantized-embedding"

    def rewrite(self, model: ir.Model) -> bool:
        modified = False
        for linear in list(linears(model)):
            matrix = linear.matrix
            if linear.node.op_type == "Gather" and isinstance(matrix, BlockQuantized):
                gather = _gather_rows if isinstance(matrix.form, Int8Rows) else _gather
                gather(model.graph, linear, matrix)
                modified = True
        return modified


def _gather(graph: ir.Graph, linear: Linear, matrix: BlockQuantized) -> None:
    node, columns, form = linear.node, matrix.dims[1], matrix.form
    table, *sides = table_constants(graph, matrix, linear.name)
    inputs = [table, node.inputs[1], *sides]
    attributes = {"bits": form.bits, "block_size": form.block_size, "gather_axis": 0, "quantize_axis": 1}
    if columns % form.block_size == 0:
        become(node, "GatherBlockQuantized", inputs, attributes)
        return
    # The operator gives whole blocks; the last one is filled up.
    name = f"{node.name}.blocks"
    (whole,) = insert_before(node, "GatherBlockQuantized", inputs, [name], attributes, role=linear.role, domain=CONTRIB)
    bounds = [
        initializer(graph, constant(np.array([number], np.int64)), f"{name}.{what}")
        for what, number in (("start", 0), ("end", columns), ("axis", 2))
    ]
    become(node, "Slice", [whole, *bounds], domain="")


def _gather_rows(graph: ir.Graph, linear: Linear, matrix: BlockQuantized) -> None:
    """Rows of int8 and the scale of each."""
    node, name = linear.node, f"{linear.node.name}"
    rows, ids = matrix.dims[0], linear.node.inputs[1]
    table = initializer(graph, signed(matrix), f"{linear.name}.int8")
    scales = initializer(graph, reshape(matrix.scales, (rows, 1)), f"{linear.name}.row_scales")
    (codes,) = insert_before(node, "Gather", [table, ids], [f"{name}.rows"], role=linear.role)
    (scale,) = insert_before(node, "Gather", [scales, ids], [f"{name}.row_scales"], role=linear.role)
    (floats,) = insert_before(
        node, "Cast", [codes], [f"{name}.row_floats"], {"to": int(ir.DataType.FLOAT)}, role=linear.role
    )
    become(node, "Mul", [floats, scale], domain="")
