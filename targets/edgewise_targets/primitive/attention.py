"""targets, primitive: attention as two products and a softmax.

Query heads that share a key head lie below one another, `[1, kv_heads, group * S, head_dim]`: no key is repeated, and
the bias is the one of the run, once for each head of a group.
"""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.facts import Attention
from edgewise.graph import Roles, get_facts
from edgewise_targets.constants import integers, scalar
from edgewise_targets.step import Step, become, insert_before


@dataclass(frozen=True)
class PlainAttention(Step):
    """Attention over an appended cache as `softmax(q * scale @ k.T + bias) @ v`; a softcap bends the scores before."""

    name: ClassVar[str] = "primitive-attention"
    removes: ClassVar[frozenset[str]] = frozenset({"Attention"})

    def rewrite(self, model: ir.Model) -> bool:
        roles, modified = Roles.of(model), False
        for index, spec in enumerate(get_facts(model).attention):
            for node in roles.all("attention", index):
                if node.op_type == "Attention":
                    _spell_out(model.graph, node, spec)
                    modified = True
        return modified


def _spell_out(graph: ir.Graph, node: ir.Node, spec: Attention) -> None:
    query, key, value, bias = node.inputs
    assert bias is not None
    group = spec.heads // spec.kv_heads

    def step(op_type: str, what: str, *inputs: ir.Value | None, **attributes: int | tuple[int, ...]) -> ir.Value:
        return insert_before(node, op_type, inputs, [f"{node.name}.{what}"], attributes, role="attention")[0]

    if group > 1:
        query = step("Reshape", "grouped", query, integers(graph, 0, spec.kv_heads, -1, spec.head_dim))
        bias = _repeated(graph, bias, group)
    factor = node.attributes.get_float("scale", 1.0)
    if factor != 1:
        query = step("Mul", "scaled", query, scalar(graph, factor))
    scores = step("MatMul", "scores", query, step("Transpose", "keys_turned", key, perm=(0, 1, 3, 2)))
    if spec.softcap:
        cap = scalar(graph, spec.softcap)
        scores = step("Mul", "capped", step("Tanh", "bent", step("Div", "relative", scores, cap)), cap)
    weights = step("Softmax", "weights", step("Add", "biased", scores, bias), axis=-1)
    if group == 1:
        become(node, "MatMul", [weights, value], domain="")
        return
    mixed = step("MatMul", "mixed", weights, value)
    become(node, "Reshape", [mixed, integers(graph, 0, spec.heads, -1, spec.head_dim)], domain="")


def _repeated(graph: ir.Graph, bias: ir.Value, group: int) -> ir.Value:
    """The bias for so many heads below one another, once for all layers."""
    name = f"{bias.name}.{group}"
    for node in graph:
        if node.outputs[0].name == name:
            return node.outputs[0]
    return insert_before(graph[0], "Concat", [bias] * group, [name], {"axis": 2})[0]
