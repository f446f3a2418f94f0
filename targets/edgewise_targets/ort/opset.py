"""targets, ort: the opset that a device's ONNX Runtime knows, where it is older than that of the canonical graph."""

from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.passes import context_of
from edgewise_targets.step import Step

OWN = ("SimplifiedLayerNormalization",)  # ONNX Runtime's, though in the domain of ONNX, and in every opset


@dataclass(frozen=True)
class StateOpset(Step):
    """The highest opset that the target takes: what remains of ONNX in a lowered graph is far older."""

    name: ClassVar[str] = "ort-opset"

    def rewrite(self, model: ir.Model) -> bool:
        target, stated = context_of(model).target, model.graph.opset_imports[""]
        limit = target.needs.opset if target else None
        if target is None or limit is None or limit >= stated:
            return False
        for node in model.graph:
            if not node.domain and node.op_type not in OWN and not onnx.defs.has(node.op_type, limit, ""):
                raise LoweringError(
                    f"node '{node.name}' is {node.op_type}, which opset {limit} of target '{target.name}' does not have"
                )
        model.graph.opset_imports[""] = limit
        return True
