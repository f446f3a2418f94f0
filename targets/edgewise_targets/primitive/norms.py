"""targets, primitive: RMS norms (arXiv 1910.07467) in the arithmetic that compilers recognise as one."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.graph import role
from edgewise_targets.constants import scalar
from edgewise_targets.step import Step, become, insert_before


@dataclass(frozen=True)
class PlainNorms(Step):
    """RMSNormalization as `x * (1 / sqrt(mean(x ** 2) + epsilon)) * weight`."""

    name: ClassVar[str] = "primitive-norms"
    removes: ClassVar[frozenset[str]] = frozenset({"RMSNormalization"})

    def rewrite(self, model: ir.Model) -> bool:
        norms = [node for node in model.graph if node.op_type == "RMSNormalization"]
        for node in norms:
            _spell_out(model.graph, node)
        return bool(norms)


def _spell_out(graph: ir.Graph, node: ir.Node) -> None:
    x, gain = node.inputs
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    two, one, least = (scalar(graph, number) for number in (2.0, 1.0, epsilon))

    def step(op_type: str, what: str, *inputs: ir.Value | None, **attributes: int | tuple[int, ...]) -> ir.Value:
        names = [f"{node.name}.{what}"]
        return insert_before(node, op_type, inputs, names, attributes, role=role(node))[0]

    mean = step("ReduceMean", "mean", step("Pow", "squares", x, two), axes=(-1,), keepdims=1)
    root = step("Sqrt", "root", step("Add", "above_zero", mean, least))
    scaled = step("Mul", "scaled", x, step("Div", "inverse", one, root))
    become(node, "Mul", [scaled, gain], domain="")
