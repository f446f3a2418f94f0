"""targets, foreign: the lowering, step after step."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.graph import remark
from edgewise.passes import Pass
from edgewise_targets.dialect import forget_shapes
from edgewise_targets.foreign.cache import AppendNew
from edgewise_targets.ort.embedding import QuantizedEmbedding
from edgewise_targets.ort.formats import RefuseSlowFormats
from edgewise_targets.ort.head import TiedHead
from edgewise_targets.ort.inputs import KeepLogits
from edgewise_targets.ort.integer import IntegerProducts
from edgewise_targets.ort.norms import PlainNorms
from edgewise_targets.ort.opset import StateOpset
from edgewise_targets.ort.products import QuantizedProducts

LEFT = (
    "attention stays as it was exported: it was not recognised, so keys and values are copied at each step, "
    "and rows of a batch are computed one after the other"
)


@dataclass(frozen=True)
class LowerForeign(Pass):
    """What `lower-ort` does with a graph whose attention is not stated: products, embedding and cache, and no more.

    Other operators stay, whatever they are: what a device does not have, its profile refuses.
    """

    name: ClassVar[str] = "lower-foreign"

    accuracy_level: Literal[0, 4] = 4
    floats: str = "float32"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if self.floats != "float32":
            raise LoweringError(
                f"the graph comes from another exporter, and its attention was not recognised: it computes in float32, "
                f"not in {self.floats}; take a target for processors"
            )
        modified = False
        for step in self.steps():
            modified |= step(model).modified
        if modified:
            remark(model, "foreign.attention", LEFT)
            forget_shapes(model.graph)
            model.graph.sort()
        return ir.passes.PassResult(model, modified)

    def steps(self) -> tuple[Pass, ...]:
        return (
            KeepLogits(),
            AppendNew(),
            QuantizedEmbedding(),
            IntegerProducts(),
            QuantizedProducts(self.accuracy_level),
            PlainNorms(),
            TiedHead(),
            StateOpset(),
            RefuseSlowFormats(),
        )
