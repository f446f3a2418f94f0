"""targets, ort: activations as the one operator that ONNX Runtime has for each."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.graph import Roles
from edgewise_targets.ort.step import Step, become


@dataclass(frozen=True)
class FuseActivations(Step):
    """SiLU (x * sigmoid(x)) as QuickGelu with alpha 1."""

    name: ClassVar[str] = "ort-activations"

    def rewrite(self, model: ir.Model) -> bool:
        roles, modified = Roles.of(model), False
        for index in roles.layers():
            nodes = roles.all("mlp.activation", index)
            if [node.op_type for node in nodes] == ["Sigmoid", "Mul"]:
                become(nodes[1], "QuickGelu", [nodes[0].inputs[0]], {"alpha": 1.0})
                modified = True
        return modified
