"""plugins, quantize: weights in blocks of few bits."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import Linear, linears
from edgewise.passes import Pass
from edgewise.quantized import BlockQuantized, Format
from edgewise_plugins.quantize.blocks import Kernel, quantize_rows
from edgewise_plugins.quantize.grid import grid
from edgewise_plugins.quantize.hqq import hqq
from edgewise_plugins.quantize.nearest import nearest
from edgewise_plugins.quantize.rules import Bits, BlockSize, Choice, Method, Rule, assign

logger = logging.getLogger(__name__)

KERNELS: Mapping[str, Kernel] = {"nearest": nearest, "grid": grid, "hqq": hqq}


@dataclass(frozen=True)
class Quantize(Pass):
    """Stores weights in few bits, a scale for each block of columns.

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

    bits: Bits = 4
    block_size: BlockSize = 128
    symmetric: bool = False
    method: Method = "nearest"
    rules: tuple[Rule, ...] = ()

    def choices(self, model: ir.Model) -> Mapping[str, Choice | None]:
        """What each weight becomes, by name, known from shapes alone; None: it stays as it is."""
        default = Choice(Format(self.bits, self.block_size, self.symmetric), self.method)
        return assign(linears(model), default, self.rules)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        choices = self.choices(model)
        if not choices:
            raise GraphError("the graph has no weights to quantize: no matrix product of it states a role")
        for linear in {linear.name: linear for linear in linears(model)}.values():
            if choice := choices[linear.name]:
                quantize(linear, choice)
        for choice, count in Counter(choices.values()).items():
            logger.info("%s: %d of %d matrices", choice or "kept as it is", count, len(choices))
        return ir.passes.PassResult(model, modified=any(choices.values()))


def quantize(linear: Linear, choice: Choice) -> None:
    """Put the quantized matrix in the place of the float one."""
    matrix, form = linear.matrix, choice.form
    if isinstance(matrix, BlockQuantized):
        raise GraphError(f"'{linear.name}' is quantized already ({matrix.form}); give one step all the rules")
    rows = partial(quantize_rows, KERNELS[choice.method], matrix, form)
    linear.replace(BlockQuantized(matrix.dims, form, rows, name=linear.name))
