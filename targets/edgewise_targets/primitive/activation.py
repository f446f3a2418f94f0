"""targets, primitive: GELU (arXiv 1606.08415) in the arithmetic that compilers recognise as one."""

from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar

import onnx_ir as ir

from edgewise.graph import role
from edgewise_targets.constants import scalar
from edgewise_targets.step import Step, become, insert_before


@dataclass(frozen=True)
class PlainGelu(Step):
    """Gelu by its error function, or by the hyperbolic tangent that approximates it, as the node states."""

    name: ClassVar[str] = "primitive-gelu"
    removes: ClassVar[frozenset[str]] = frozenset({"Gelu"})

    def rewrite(self, model: ir.Model) -> bool:
        nodes = [node for node in model.graph if node.op_type == "Gelu"]
        for node in nodes:
            _spell_out(model.graph, node)
        return bool(nodes)


def _spell_out(graph: ir.Graph, node: ir.Node) -> None:
    x, one, half = node.inputs[0], scalar(graph, 1.0), scalar(graph, 0.5)

    def step(op_type: str, what: str, *inputs: ir.Value | None) -> ir.Value:
        return insert_before(node, op_type, inputs, [f"{node.name}.{what}"], role=role(node))[0]

    if node.attributes.get_string("approximate", "none") == "tanh":
        cubes = step("Mul", "cubes", step("Pow", "cubed", x, scalar(graph, 3.0)), scalar(graph, 0.044715))
        inner = step("Mul", "inner", step("Add", "sum", x, cubes), scalar(graph, sqrt(2 / pi)))
        bent = step("Tanh", "bent", inner)
    else:
        bent = step("Erf", "bent", step("Div", "inner", x, scalar(graph, sqrt(2))))
    become(node, "Mul", [step("Mul", "half", x, half), step("Add", "above_zero", bent, one)], domain="")
