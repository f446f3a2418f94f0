"""targets, primitive: rows of a quantized embedding, dequantized as they are read, in plain arithmetic.

The codes stay the bytes that a tied lm_head reads. A byte holds `8 / bits` codes, low bits first: those from bit b on
are floor(byte / 2 ** b), and what the codes above are worth is taken off.
"""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.graph import Linear, linears
from edgewise.quantized import BlockQuantized
from edgewise_targets.codes import table_constants
from edgewise_targets.constants import integers, scalar
from edgewise_targets.step import Step, become, insert_before


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
            zero: ir.Value = scalar(self.graph, form.middle)
        else:
            width = form.zero_point_bytes(columns) * 8 // form.bits
            zero = self._numbers("zeros", zeros, form.bits, (width, 1))
            if width > blocks:  # a row of them is whole bytes
                zero = self._step("Slice", "zeros.held", zero, *self._bounds(blocks))
        scale = self._reshape("scales", self._gather("scales", scales), (blocks, 1))
        values = self._step("Mul", "values", self._step("Sub", "centred", codes, zero), scale)
        shape = integers(self.graph, 0, 0, blocks * form.block_size)
        if columns == blocks * form.block_size:
            become(self.linear.node, "Reshape", [values, shape], domain="")
            return
        whole = self._step("Reshape", "whole", values, shape)
        become(self.linear.node, "Slice", [whole, *self._bounds(columns)], domain="")

    def _numbers(self, what: str, table: ir.Value | None, bits: int, shape: tuple[int, int]) -> ir.Value:
        """The codes in the bytes of each row, as floats in that shape."""
        rows = self._step("Cast", f"{what}.bytes", self._gather(what, table), to=int(ir.DataType.FLOAT))
        if bits == 8:
            return self._reshape(what, rows, shape)
        above = [rows, *(self._above(what, rows, bit) for bit in range(bits, 8, bits))]
        parts = []
        for number, value in enumerate(above):
            if number + 1 < len(above):
                worth = self._step("Mul", f"{what}.worth.{number}", above[number + 1], scalar(self.graph, 1 << bits))
                value = self._step("Sub", f"{what}.only.{number}", value, worth)
            parts.append(self._step("Unsqueeze", f"{what}.part.{number}", value, integers(self.graph, -1)))
        return self._reshape(what, self._step("Concat", f"{what}.parts", *parts, axis=-1), shape)

    def _above(self, what: str, rows: ir.Value, bit: int) -> ir.Value:
        """What is left of bytes without their lower bits."""
        share = self._step("Div", f"{what}.share.{bit}", rows, scalar(self.graph, 1 << bit))
        return self._step("Floor", f"{what}.above.{bit}", share)

    def _gather(self, what: str, table: ir.Value | None) -> ir.Value:
        return self._step("Gather", f"{what}.rows", table, self.linear.node.inputs[1], axis=0)

    def _reshape(self, what: str, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        return self._step("Reshape", f"{what}.shaped", x, integers(self.graph, 0, 0, *shape))

    def _step(self, op_type: str, what: str, *inputs: ir.Value | None, **attributes: int) -> ir.Value:
        node = self.linear.node
        return insert_before(node, op_type, inputs, [f"{node.name}.{what}"], attributes, role=self.linear.role)[0]

    def _bounds(self, stop: int) -> list[ir.Value]:
        """Of a Slice that keeps the first so many along the axis behind those of the tokens."""
        return [integers(self.graph, number) for number in (0, stop, 2)]
