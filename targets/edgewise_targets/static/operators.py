"""targets, static: the operators that may remain, each seen on QNN's accelerator, and what has no form in them."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.graph import get_facts
from edgewise_targets.dialect import operators
from edgewise_targets.step import Step

OPERATORS = operators(
    "Add Attention Concat Div Gather Gelu MatMul Mul RMSNormalization Reshape RotaryEmbedding Sigmoid Tanh Transpose",
    "MatMulNBits",
)


@dataclass(frozen=True)
class RefuseExperts(Step):
    """Raises LoweringError for a mixture of experts, whose choice is not made in a graph of fixed shapes."""

    name: ClassVar[str] = "static-refuse-experts"

    def rewrite(self, model: ir.Model) -> bool:
        sparse = [str(index) for index, experts in enumerate(get_facts(model).experts) if experts]
        if sparse:
            raise LoweringError(
                f"layers {', '.join(sparse)} have a mixture of experts, which the dialect 'static' does not express: "
                "choose a dense model, or a target that is lowered with 'lower-ort'"
            )
        return False
