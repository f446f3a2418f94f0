"""targets, primitive: the graph says opset 17, which runtimes since 2022 know."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise_targets.constants import integers
from edgewise_targets.dialect import operators
from edgewise_targets.step import Step

OPSET, IR_VERSION = 17, 8

# What may remain. Each of them computes in opset 17 what it computes in opset 23, in the form that these steps give it.
OPERATORS = operators(
    "Add Cast Concat ConstantOfShape Div Erf Floor Gather GatherElements LayerNormalization MatMul Mul Neg Pow "
    "ReduceMean ReduceSum Relu Reshape ScatterElements Shape Sigmoid Slice Softmax Split Sqrt Sub Sum Tanh TopK "
    "Transpose Unsqueeze",
    "MatMulNBits",
)


@dataclass(frozen=True)
class OlderOpset(Step):
    """Opset 17, IR 8: what a Split cuts is sizes, no number of parts."""

    name: ClassVar[str] = "primitive-opset"

    def rewrite(self, model: ir.Model) -> bool:
        if model.graph.opset_imports[""] == OPSET:
            return False
        for node in list(model.graph):
            if node.op_type == "Split" and "num_outputs" in node.attributes:
                _cut_by_sizes(model.graph, node)
        model.graph.opset_imports[""] = OPSET
        model.ir_version = IR_VERSION
        return True


def _cut_by_sizes(graph: ir.Graph, node: ir.Node) -> None:
    """The canonical graph splits the gates of experts, one for each."""
    node.attributes.pop("num_outputs")
    node.resize_inputs(2)
    node.replace_input_with(1, integers(graph, *[1] * len(node.outputs)))
