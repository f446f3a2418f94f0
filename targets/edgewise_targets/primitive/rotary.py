"""targets, primitive: rotary position embeddings (arXiv 2104.09864) as `x * cos + turned(x) * sin`.

The rows of the tables that the positions of a run need are gathered once for all layers.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.facts import Attention, Rotary
from edgewise.graph import Roles, get_facts, role
from edgewise.tensors import constant
from edgewise_targets.step import Step, become, initializer, insert_before


@dataclass(frozen=True)
class PlainRotary(Step):
    """RotaryEmbedding of heads `[1, heads, S, head_dim]`, whose first dimensions, or all, are two halves that turn."""

    name: ClassVar[str] = "primitive-rotary"
    removes: ClassVar[frozenset[str]] = frozenset({"RotaryEmbedding"})

    def rewrite(self, model: ir.Model) -> bool:
        facts, roles, modified = get_facts(model), Roles.of(model), False
        for index, spec in enumerate(facts.attention):
            for part in "qk":
                node = roles.maybe(f"attention.{part}.rotary", index)
                if node is None or node.op_type != "RotaryEmbedding" or spec.rotary is None:
                    continue
                rotary = facts.rotary[spec.rotary]
                if rotary.interleaved:
                    raise LoweringError(
                        f"layer {index}: neighbouring dimensions are rotated together (interleaved); the dialect "
                        "'primitive' rotates halves only"
                    )
                _spell_out(model.graph, node, spec, rotary)
                modified = True
        return modified


def _spell_out(graph: ir.Graph, node: ir.Node, spec: Attention, rotary: Rotary) -> None:
    x = node.inputs[0]
    assert x is not None
    cos, sin = (_rows(graph, node, place, f"rotary.{spec.rotary}.{kind}s") for place, kind in ((1, "cos"), (2, "sin")))
    if rotary.dim == spec.head_dim:
        added = _turn(graph, node, x, rotary.dim, cos, sin)
        become(node, "Add", added, domain="")
        return
    rotated, kept = _split(graph, node, x, "parts", (rotary.dim, spec.head_dim - rotary.dim))
    added = _turn(graph, node, rotated, rotary.dim, cos, sin)
    (rotated,) = insert_before(node, "Add", added, [f"{node.name}.rotated"], role=role(node))
    become(node, "Concat", [rotated, kept], {"axis": -1}, domain="")


def _turn(
    graph: ir.Graph, node: ir.Node, x: ir.Value, dim: int, cos: ir.Value, sin: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The two terms of the rotation: `[x1, x2] * cos` and `[-x2, x1] * sin`."""

    def step(op_type: str, what: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        return insert_before(node, op_type, inputs, [f"{node.name}.{what}"], attributes, role=role(node))[0]

    first, second = _split(graph, node, x, "halves", (dim // 2, dim // 2))
    turned = step("Concat", "turned", step("Neg", "negated", second), first, axis=-1)
    return step("Mul", "by_cos", x, cos), step("Mul", "by_sin", turned, sin)


def _split(graph: ir.Graph, node: ir.Node, x: ir.Value, what: str, sizes: tuple[int, int]) -> list[ir.Value]:
    name = f"integers.{'_'.join(map(str, sizes))}"
    lengths = initializer(graph, constant(np.array(sizes, np.int64)), name)
    names = [f"{node.name}.{what}.{number}" for number in range(2)]
    return list(insert_before(node, "Split", [x, lengths], names, {"axis": -1}, role=role(node)))


def _rows(graph: ir.Graph, node: ir.Node, place: int, name: str) -> ir.Value:
    """The rows of one table for the positions of the run, for both halves of a head: `[1, 1, S, dim]`."""
    table, positions = node.inputs[place], node.inputs[3]
    for value in (user.outputs[0] for user in graph if user.op_type == "Unsqueeze"):
        if value.name == name:
            return value
    first = graph[0]
    axes = initializer(graph, constant(np.array([1], np.int64)), "integers.1")
    (half,) = insert_before(first, "Gather", [table, positions], [f"{name}.half"], {"axis": 0})
    (both,) = insert_before(first, "Concat", [half, half], [f"{name}.both"], {"axis": -1})
    return insert_before(first, "Unsqueeze", [both, axes], [name])[0]
