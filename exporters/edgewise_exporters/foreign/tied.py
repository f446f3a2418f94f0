"""exporters, foreign: an lm_head that is the embedding: exporters write it twice, turned around."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.graph import Roles, get_facts, mark, set_facts
from edgewise.passes import Pass
from edgewise.tensors import streamed, transpose


@dataclass(frozen=True)
class TieHead(Pass):
    """The lm_head multiplies by the embedding, where its matrix is that, number for number."""

    name: ClassVar[str] = "foreign-tie-head"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        roles = Roles.of(model)
        embedding, head = roles.maybe("embedding"), roles.maybe("lm_head")
        if embedding is None or head is None:
            return ir.passes.PassResult(model, False)
        table, weight = embedding.inputs[0], head.inputs[1]
        if table is None or weight is None or not weight.is_initializer() or not _are_equal(table, weight):
            return ir.passes.PassResult(model, False)
        turned = ir.node("Transpose", [table], attributes={"perm": (1, 0)}, name="lm_head.weight")
        turned.outputs[0].name = "lm_head.weight.turned"
        head.prepend(mark(turned, "lm_head.weight"))
        head.replace_input_with(1, turned.outputs[0])
        if not weight.uses():
            del model.graph.initializers[str(weight.name)]
        set_facts(model, replace(get_facts(model), tied=True))
        return ir.passes.PassResult(model, True)


def _are_equal(table: ir.Value, weight: ir.Value) -> bool:
    """Whether a matrix is the table, turned around; a block of rows is in memory at a time."""
    ours, theirs = streamed(table.const_value), transpose(streamed(weight.const_value))
    if ours.dims != theirs.dims or ours.dtype != theirs.dtype:
        return False
    return all(np.array_equal(ours.read(a, b), theirs.read(a, b)) for a, b in theirs.blocks())
