"""targets, ort: activations as the one operator that ONNX Runtime has for each."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.graph import role
from edgewise_targets.step import Step, become


@dataclass(frozen=True)
class FuseActivations(Step):
    """SiLU, x * sigmoid(alpha * x), as QuickGelu; alpha is 1 where nothing else is said."""

    name: ClassVar[str] = "ort-activations"

    def rewrite(self, model: ir.Model) -> bool:
        gates = [
            node for node in model.graph if node.op_type == "Sigmoid" and (role(node) or "").endswith(".activation")
        ]
        for gate in gates:
            (product,) = gate.outputs[0].consumers()
            (x,) = (value for value in product.inputs if value is not gate.outputs[0])
            become(product, "QuickGelu", [x], {"alpha": _steepness(gate, x)})
        return bool(gates)


def _steepness(gate: ir.Node, x: ir.Value | None) -> float:
    """What `x` is multiplied by on its way into the sigmoid."""
    value = gate.inputs[0]
    scaled = value.producer() if value is not None and value is not x else None
    if scaled is None:
        return 1.0
    (factor,) = (side.const_value for side in scaled.inputs if side is not None and side is not x)
    assert factor is not None
    return float(factor.numpy())
