"""targets, ort: a tied lm_head in floats, reading the embedding as it is stored."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.graph import Roles
from edgewise.passes import context_of
from edgewise_targets.step import CONTRIB, Step, become


@dataclass(frozen=True)
class TiedHead(Step):
    """FusedMatMul with the embedding, transposed inside: ONNX Runtime would fold a Transpose into a second table.

    Where the target has no such operator (WebGPU), it does.
    """

    name: ClassVar[str] = "ort-tied-head"

    def rewrite(self, model: ir.Model) -> bool:
        roles, target = Roles.of(model), context_of(model).target
        if target and f"{CONTRIB}:FusedMatMul" in target.needs.denied:
            return False
        turned, head = roles.maybe("lm_head.weight"), roles.maybe("lm_head")
        if turned is None or head is None or turned.op_type != "Transpose" or head.inputs[1] is not turned.outputs[0]:
            return False
        become(head, "FusedMatMul", [head.inputs[0], turned.inputs[0]], {"transA": 0, "transB": 1, "alpha": 1.0})
        return True
