"""plugins: W8A8: int8 weights, a scale for each row, for products with activations of 8 bits."""

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import ClassVar, Literal

import onnx_ir as ir

from edgewise.errors import OptionError
from edgewise.graph import Linear, linears
from edgewise.integer import Int8Rows
from edgewise.options import known
from edgewise.passes import Pass
from edgewise.quantized import BlockQuantized, Format
from edgewise_plugins.quantize.blocks import quantize_rows
from edgewise_plugins.quantize.nearest import nearest
from edgewise_plugins.quantize.rules import ROUTERS

logger = logging.getLogger(__name__)

TABLE = Format(bits=8, block_size=128, symmetric=True)


@dataclass(frozen=True)
class W8A8(Pass):
    """Stores the matrices of the layers in int8, a scale for each row, and lets the target multiply integers.

    Long prompts gain most: they are bound by arithmetic. `keep`: weights that stay as they are, by name; `*` stands
    for anything. Routers and the experts that they choose among stay as they are, and so do matrices that a step before
    has quantized:

        [[step]]
        pass = "quantize"
        rules = [{ role = "mlp.down", layers = "0-1", bits = 8 }, { keep = true }]

        [[step]]
        pass = "w8a8"
        keep = ["model.layers.0.*"]

    `embedding`: whether the embedding and the lm_head become int8 too. `head`: in blocks of 128, and activations
    stay as they are; or in rows, as all the rest, for devices without a kernel for blocks.
    The graph keeps its shape and stays runnable: its weights are now the dequantized ones, its activations float.
    """

    name: ClassVar[str] = "w8a8"

    keep: tuple[str, ...] = ()
    embedding: bool = True
    head: Literal["blocks", "rows"] = "blocks"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._refuse_unmatched([linear.name for linear in linears(model)])
        chosen = dict(self._choices(model))
        for linear, form in chosen.values():
            matrix = linear.matrix
            rows = partial(quantize_rows, nearest, matrix, form)
            linear.replace(BlockQuantized(matrix.dims, form, rows, name=linear.name))
        logger.info("w8a8: %d matrices", len(chosen))
        return ir.passes.PassResult(model, modified=bool(chosen))

    def _choices(self, model: ir.Model) -> Iterator[tuple[str, tuple[Linear, Format]]]:
        """What becomes what, by name: a tied lm_head and the embedding are one."""
        for linear in linears(model):
            if isinstance(linear.matrix, BlockQuantized) or self._keeps(linear.name):
                continue
            rows = Int8Rows.of(columns=linear.matrix.dims[1])
            if linear.role.startswith(("attention.", "mlp.", "shared.")) and linear.role not in ROUTERS:
                yield linear.name, (linear, rows)
            elif self.embedding and linear.role in ("embedding", "lm_head"):
                yield linear.name, (linear, TABLE if self.head == "blocks" else rows)

    def _keeps(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.keep)

    def _refuse_unmatched(self, names: Collection[str]) -> None:
        for pattern in self.keep:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise OptionError(f"keep: '{pattern}' matches no weight of this model; known: {known(names)}")
