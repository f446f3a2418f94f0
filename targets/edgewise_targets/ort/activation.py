"""targets, ort: activations as the one operator that ONNX Runtime has for each."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.graph import role
from edgewise_targets.step import Step, become


@dataclass(frozen=True)
class FuseActivations(Step):
    """SiLU (x * sigmoid(x)) as QuickGelu with alpha 1."""

    name: ClassVar[str] = "ort-activations"

    def rewrite(self, model: ir.Model) -> bool:
        gates = [
            node for node in model.graph if node.op_type == "Sigmoid" and (role(node) or "").endswith(".activation")
        ]
        for gate in gates:
            (product,) = gate.outputs[0].consumers()
            become(product, "QuickGelu", [gate.inputs[0]], {"alpha": 1.0})
        return bool(gates)
