"""targets, primitive: rotary position embeddings (arXiv 2104.09864) as `x * cos + turned(x) * sin`.

The rows of the tables that the positions of a run need are gathered once for all layers. Those for queries are
multiplied by the factor of the attention's scores: rotation is linear, and scores then need no factor of their own.
OpenVINO makes one operator of what stands here.
"""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.facts import Attention, Rotary
from edgewise.graph import Roles, get_facts, role
from edgewise_targets.constants import integers, scalar
from edgewise_targets.step import Step, become, insert_before


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
                _refuse_neighbours(rotary, index)
                factor = _take_scale(roles, index) if part == "q" else 1.0
                _spell_out(model.graph, node, spec, rotary, factor)
                modified = True
        return modified


def _refuse_neighbours(rotary: Rotary, layer: int) -> None:
    if rotary.interleaved:
        raise LoweringError(
            f"layer {layer}: neighbouring dimensions are rotated together (interleaved); the dialect 'primitive' "
            "rotates halves only"
        )


def _take_scale(roles: Roles, layer: int) -> float:
    """The factor of the layer's scores, which the attention then has no longer."""
    (attention,) = (node for node in roles.all("attention", layer) if node.op_type == "Attention")
    factor = attention.attributes.get_float("scale", 1.0)
    attention.attributes.add(ir.AttrFloat32("scale", 1.0))
    return factor


def _spell_out(graph: ir.Graph, node: ir.Node, spec: Attention, rotary: Rotary, factor: float) -> None:
    x = node.inputs[0]
    assert x is not None
    rows = [
        _rows(graph, node, place, f"rotary.{spec.rotary}.{kind}", factor) for place, kind in ((1, "cos"), (2, "sin"))
    ]
    if rotary.dim == spec.head_dim:
        become(node, "Add", _turn(graph, node, x, rotary.dim, rows), domain="")
        return
    rotated, kept = _split(graph, node, x, "parts", (rotary.dim, spec.head_dim - rotary.dim))
    added = _turn(graph, node, rotated, rotary.dim, rows)
    (rotated,) = insert_before(node, "Add", added, [f"{node.name}.rotated"], role=role(node))
    if factor != 1:
        (kept,) = insert_before(node, "Mul", [kept, scalar(graph, factor)], [f"{node.name}.kept"], role=role(node))
    become(node, "Concat", [rotated, kept], {"axis": -1}, domain="")


def _turn(graph: ir.Graph, node: ir.Node, x: ir.Value, dim: int, rows: list[ir.Value]) -> list[ir.Value]:
    """The two terms of the rotation: `[x1, x2] * cos` and `[-x2, x1] * sin`."""

    def step(op_type: str, what: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        return insert_before(node, op_type, inputs, [f"{node.name}.{what}"], attributes, role=role(node))[0]

    first, second = _split(graph, node, x, "halves", (dim // 2, dim // 2))
    turned = step("Concat", "turned", step("Mul", "negated", second, scalar(graph, -1.0)), first, axis=-1)
    return [step("Mul", "by_cos", x, rows[0]), step("Mul", "by_sin", turned, rows[1])]


def _split(graph: ir.Graph, node: ir.Node, x: ir.Value, what: str, sizes: tuple[int, int]) -> list[ir.Value]:
    names = [f"{node.name}.{what}.{number}" for number in range(2)]
    return list(insert_before(node, "Split", [x, integers(graph, *sizes)], names, {"axis": 3}, role=role(node)))


def _rows(graph: ir.Graph, node: ir.Node, place: int, table: str, factor: float) -> ir.Value:
    """The rows of one table for the positions of the run, for both halves of a head: `[1, 1, S, dim]`."""
    name = f"{table}.rows" if factor == 1 else f"{table}.rows.{factor:.9g}"
    for value in (user.outputs[0] for user in graph if user.op_type in ("Unsqueeze", "Mul")):
        if value.name == name:
            return value
    first = graph[0]
    if factor != 1:
        plain = _rows(graph, node, place, table, 1.0)
        after = next(user for user in graph if user.outputs[0] is plain)
        scaled = ir.node("Mul", [plain, scalar(graph, factor)], name=name)
        scaled.outputs[0].name = name
        after.append(scaled)
        return scaled.outputs[0]
    (half,) = insert_before(first, "Gather", [node.inputs[place], node.inputs[3]], [f"{table}.half"], {"axis": 0})
    (both,) = insert_before(first, "Concat", [half, half], [f"{table}.both"], {"axis": -1})
    return insert_before(first, "Unsqueeze", [both, integers(graph, 1)], [name])[0]
