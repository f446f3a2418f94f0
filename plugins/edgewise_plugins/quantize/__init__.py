"""plugins, quantize: weights in blocks of few bits."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import Linear, linears
from edgewise.passes import Pass
from edgewise.quantized import BlockQuantized, Format
from edgewise_plugins.quantize.nearest import quantize_rows
from edgewise_plugins.quantize.rules import Rule, assign

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Quantize(Pass):
    """Stores weights in few bits, a scale for each block of columns; rounds to nearest.

    Every matrix product with a constant weight is quantized, the embedding and the lm_head too (once where they are
    tied). `rules` make exceptions; the first that matches wins:

        [[step]]
        pass = "quantize"
        rules = [
            { role = "lm_head", bits = 8 },
            { role = "attention.v", layers = "0-3", bits = 8, block_size = 32 },
            { weight = "*.down_proj.weight", keep = true },
        ]

    The graph keeps its shape and stays runnable: its weights are now the dequantized ones. No weight is read here;
    whoever reads or writes one quantizes it then, a block of rows at a time.
    """

    name: ClassVar[str] = "quantize"

    bits: Literal[4, 8] = 4
    block_size: Literal[32, 64, 128] = 128
    symmetric: bool = False
    rules: tuple[Rule, ...] = ()

    def formats(self, model: ir.Model) -> Mapping[str, Format | None]:
        """The format of each weight by name, known from shapes alone; None: it stays as it is."""
        default = Format(self.bits, self.block_size, self.symmetric)
        return assign(linears(model), default, self.rules)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        formats = self.formats(model)
        if not formats:
            raise GraphError("the graph has no weights to quantize: no matrix product of it states a role")
        for linear in {linear.name: linear for linear in linears(model)}.values():
            if form := formats[linear.name]:
                quantize(linear, form)
        for form, count in Counter(formats.values()).items():
            logger.info("%s: %d of %d matrices", form or "kept as it is", count, len(formats))
        return ir.passes.PassResult(model, modified=any(formats.values()))


def quantize(linear: Linear, form: Format) -> None:
    """Put the quantized matrix in the place of the float one."""
    matrix = linear.matrix
    if isinstance(matrix, BlockQuantized):
        raise GraphError(f"'{linear.name}' is quantized already ({matrix.form}); give one step all the rules")
    linear.replace(BlockQuantized(matrix.dims, form, partial(quantize_rows, matrix, form), name=linear.name))
