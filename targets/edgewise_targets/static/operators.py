"""targets, static: the operators that may remain, each seen on QNN's accelerator; the rest is refused by name."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.graph import get_facts, role
from edgewise_targets.step import CONTRIB, Step

STANDARD = frozenset(
    {"Add", "Attention", "Concat", "Div", "Gather", "Gelu", "MatMul", "Mul", "RMSNormalization", "Reshape"}
    | {"RotaryEmbedding", "Sigmoid", "Tanh", "Transpose"}
)
OPERATORS = {"": STANDARD, CONTRIB: frozenset({"MatMulNBits"})}


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


@dataclass(frozen=True)
class OnlyKnownOperators(Step):
    """Raises LoweringError for an operator that is not among those that may remain; changes nothing."""

    name: ClassVar[str] = "static-operators"

    def rewrite(self, model: ir.Model) -> bool:
        for node in model.graph:
            if node.op_type not in OPERATORS.get(node.domain, ()):
                raise LoweringError(
                    f"node '{node.name}' ({node.op_type}, role '{role(node)}') has no form in the dialect 'static'; "
                    f"it has {', '.join(sorted(STANDARD))} and MatMulNBits"
                )
        return False
