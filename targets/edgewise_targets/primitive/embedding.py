"""targets, primitive: rows of a quantized embedding, dequantized as they are read, in plain arithmetic.

The codes stay the bytes that a tied lm_head reads. A byte holds `8 / bits` codes, low bits first: those from bit b on
are floor(byte / 2 ** b), and what the codes above are worth is taken off.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.graph import Linear, linears
from edgewise.quantized import BlockQuantized
from edgewise.tensors import constant
from edgewise_targets.codes import table_constants
from edgewise_targets.step import Attributes, Step, become, initializer, insert_before


@dataclass(frozen=True)
class PlainEmbedding(Step):
    """Gather of codes, scales and zero points where an embedding is quantized: `(code - zero_point) * scale`."""

    name: ClassVar[str] = "primitive-embedding"

    def rewrite(self, model: ir.Model) -> bool:
        modified = False
        for linear in list(linears(model)):
            matrix = linear.matrix
            if linear.node.op_type == "Gather" and isinstance(matrix, BlockQuantized):
                Rows(model.graph, linear).dequantize(matrix)
                modified = True
        return modified


@dataclass(frozen=True)
class Rows:
    """The rows that the tokens of a run select, on their way from codes to numbers."""

    graph: ir.Graph
    linear: Linear

    def dequantize(self, matrix: BlockQuantized) -> None:
        form, columns = matrix.form, matrix.dims[1]
        table, scales, zeros = table_constants(self.graph, matrix, self.linear.name)
        blocks = form.blocks(columns)
        codes = self._numbers("codes", table, form.bits, (blocks, form.block_size))
        if zeros is None:
            zero: ir.Value = self._scalar(form.middle)
        else:
            width = form.zero_point_bytes(columns) * 8 // form.bits
            zero = self._numbers("zeros", zeros, form.bits, (width, 1))
            if width > blocks:  # a row of them is whole bytes
                zero = self._step("Slice", "zeros.held", zero, *map(self._integers, (0, blocks, 2)))
        scale = self._reshape("scales", self._gather("scales", scales), (blocks, 1))
        values = self._step("Mul", "values", self._step("Sub", "centred", codes, zero), scale)
        shape = self._integers(0, 0, blocks * form.block_size)
        if columns == blocks * form.block_size:
            become(self.linear.node, "Reshape", [values, shape], domain="")
            return
        whole = self._step("Reshape", "whole", values, shape)
        become(self.linear.node, "Slice", [whole, *map(self._integers, (0, columns, 2))], domain="")

    def _numbers(self, what: str, table: ir.Value | None, bits: int, shape: tuple[int, int]) -> ir.Value:
        """The codes in the bytes of each row, as floats in that shape."""
        rows = self._step("Cast", f"{what}.bytes", self._gather(what, table), to=int(ir.DataType.FLOAT))
        if bits == 8:
            return self._reshape(what, rows, shape)
        above = [rows] + [
            self._step("Floor", f"{what}.{bit}", self._step("Div", f"{what}.from.{bit}", rows, self._scalar(1 << bit)))
            for bit in range(bits, 8, bits)
        ]
        parts = []
        for number, value in enumerate(above):
            if number + 1 < len(above):
                worth = self._step("Mul", f"{what}.worth.{number}", above[number + 1], self._scalar(1 << bits))
                value = self._step("Sub", f"{what}.only.{number}", value, worth)
            parts.append(self._step("Unsqueeze", f"{what}.part.{number}", value, self._integers(-1)))
        return self._reshape(what, self._step("Concat", f"{what}.parts", *parts, axis=-1), shape)

    def _gather(self, what: str, table: ir.Value | None) -> ir.Value:
        return self._step("Gather", f"{what}.rows", table, self.linear.node.inputs[1], axis=0)

    def _reshape(self, what: str, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        return self._step("Reshape", f"{what}.shaped", x, self._integers(0, 0, *shape))

    def _step(self, op_type: str, what: str, *inputs: ir.Value | None, **attributes: int) -> ir.Value:
        node, settings = self.linear.node, dict[str, int](attributes)
        given: Attributes = settings
        return insert_before(node, op_type, inputs, [f"{node.name}.{what}"], given, role=self.linear.role)[0]

    def _integers(self, *values: int) -> ir.Value:
        name = f"integers.{'_'.join(map(str, values))}"
        return initializer(self.graph, constant(np.array(values, np.int64)), name)

    def _scalar(self, number: int) -> ir.Value:
        return initializer(self.graph, constant(np.array(number, np.float32)), f"scalar.{number}")
