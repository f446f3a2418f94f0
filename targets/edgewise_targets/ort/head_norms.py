"""targets, ort: norms of query and key heads as inputs of attention, for GPU kernels that compute them there."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.graph import Roles, get_facts
from edgewise_targets.ort.norms import epsilon
from edgewise_targets.step import Step

WEIGHTS = (14, 15)  # inputs of GroupQueryAttention


@dataclass(frozen=True)
class NormInside(Step):
    """GroupQueryAttention that norms the heads of queries and keys before it rotates them."""

    name: ClassVar[str] = "ort-norm-inside"

    def rewrite(self, model: ir.Model) -> bool:
        roles, modified = Roles.of(model), False
        for index, spec in enumerate(get_facts(model).attention):
            attention = roles.one("attention", index)
            norms = [roles.all(f"attention.{part}.norm", index) for part in "qk"]
            if spec.qk_norm != "head" or not all(norms):
                continue
            attention.resize_inputs(max(WEIGHTS) + 1)
            for place, (weight, nodes) in enumerate(zip(WEIGHTS, norms, strict=True)):
                (norm,) = (node for node in nodes if node.op_type == "RMSNormalization")
                attention.replace_input_with(place, nodes[0].inputs[0])
                attention.replace_input_with(weight, norm.inputs[1])
                attention.attributes.add(ir.AttrFloat32("qk_norm_epsilon", epsilon(norm)))
            modified = True
        return modified
