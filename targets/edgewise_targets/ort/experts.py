"""targets, ort: the mixture of experts of a layer as one operator, which computes only what a token is given to.

Gate and up become one matrix whose rows take turns (g0, u0, g1, u1 ...), the one form of a gated unit that ONNX
Runtime's CPU kernels know (1.31.1). They compute softmax over the active experts from the router's logits; where a
model's gates are probabilities among all experts, QMoE is given these, and what MoE gives is multiplied by their sum.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgewise.facts import Experts
from edgewise.graph import FLOAT, Roles, activations, get_facts, linears
from edgewise.tensors import Stacked, constant
from edgewise_targets.codes import stacked_constants
from edgewise_targets.ort.interleave import FloatStacks, QuantizedStacks, stacks
from edgewise_targets.step import CONTRIB, Attributes, Step, become, initializer, insert_before

logger = logging.getLogger(__name__)

SWIGLU: Attributes = {"activation_type": "swiglu", "activation_alpha": 1.0, "activation_beta": 0.0, "swiglu_fusion": 1}


@dataclass(frozen=True)
class FuseExperts(Step):
    """QMoE for quantized experts, MoE for float ones. Experts of several formats stay products, all of them computed.

    `accuracy_level` is how activations are treated, as in QuantizedProducts.
    """

    name: ClassVar[str] = "ort-experts"

    accuracy_level: Literal[0, 4] = 4

    def rewrite(self, model: ir.Model) -> bool:
        roles, modified, dense = Roles.of(model), False, []
        by_node = {linear.node: linear for linear in linears(model)}
        for index, experts in enumerate(get_facts(model).experts):
            node = roles.maybe("expert.sum", index)
            products = [roles.all(f"expert.{part}", index) for part in ("gate", "up", "down")]
            if experts is None or node is None or not _are_there(products, by_node):
                continue
            parts = [[by_node[product] for product in group] for group in products]
            matrices = stacks(*parts) if _is_swiglu(roles, index) else None
            if matrices is None:
                dense.append(str(index))
                continue
            place = _place(model.graph, roles, node, parts[0][0].node.inputs[0], experts, index)
            if isinstance(matrices, FloatStacks):
                _floats(place, matrices)
            else:
                exact = any(activations(part.node) == FLOAT for group in parts for part in group)
                _quantized(place, matrices, 0 if exact else self.accuracy_level)
            modified = True
        if dense:
            logger.warning(
                "layers %s: all experts are computed for every token, as ONNX Runtime has an operator only for gated "
                "SiLU in one format a layer, whose blocks divide the sizes of an expert",
                ", ".join(dense),
            )
        return modified


def _are_there(products: Sequence[Sequence[ir.Node]], linears: Collection[ir.Node]) -> bool:
    """Whether the products of all experts are what the canonical graph has: nothing has become of them yet."""
    return all(group and all(node in linears for node in group) for group in products)


def _is_swiglu(roles: Roles, layer: int) -> bool:
    return {node.op_type for node in roles.all("expert.activation", layer)} == {"Sigmoid", "Mul"}


@dataclass(frozen=True)
class Place:
    """Where an operator comes: in the place of the node that adds up what the experts give."""

    graph: ir.Graph
    node: ir.Node
    x: ir.Value | None
    logits: ir.Value  # [tokens, experts]
    probabilities: ir.Value
    top: ir.Value  # the probabilities of the active ones
    experts: Experts

    @property
    def name(self) -> str:
        return str(self.node.name)

    @property
    def attributes(self) -> dict[str, int | float | str | Sequence[int]]:
        return {**SWIGLU, "k": self.experts.active, "normalize_routing_weights": int(self.experts.normalized)}


def _place(graph: ir.Graph, roles: Roles, node: ir.Node, x: ir.Value | None, experts: Experts, layer: int) -> Place:
    router = roles.one("router", layer)
    logits = _flat(graph, node, router.outputs[0], experts)
    probabilities, top = (roles.one(f"router.{part}", layer).outputs[0] for part in ("probabilities", "top"))
    return Place(graph, node, x, logits, probabilities, top, experts)


def _flat(graph: ir.Graph, before: ir.Node, value: ir.Value, experts: Experts) -> ir.Value:
    """`[batch, sequence, experts]` as `[tokens, experts]`."""
    shape = initializer(graph, constant(np.array([-1, experts.count], np.int64)), f"experts.{experts.count}")
    return insert_before(before, "Reshape", [value, shape], [f"{value.name}.flat"], role="router")[0]


def _quantized(at: Place, matrices: QuantizedStacks, accuracy_level: int) -> None:
    """Router logits choose the experts; where gates are no softmax over the chosen ones, they are given beside them."""
    weights = None
    if not at.experts.normalized:
        weights = _flat(at.graph, at.node, at.probabilities, at.experts)
    wide = stacked_constants(at.graph, matrices.wide, at.experts.count, f"{at.name}.gate_up")
    down = stacked_constants(at.graph, matrices.down, at.experts.count, f"{at.name}.down")
    inputs = [at.x, at.logits, *wide[:2], None, *down[:2], *[None] * 4, wide[2], down[2], None, weights]
    attributes = at.attributes | {
        "expert_weight_bits": matrices.wide.form.bits,
        "block_size": matrices.wide.form.block_size,
        "accuracy_level": accuracy_level,
        "weights_prepacked": 0,
        "quant_type": "int",
    }
    become(at.node, "QMoE", inputs, attributes)


def _floats(at: Place, matrices: FloatStacks) -> None:
    """Its gates always add up to 1; where they do not, what they give is multiplied by what they add up to."""
    wide, down = (
        initializer(at.graph, Stacked(matrix, matrix.dims[0] // at.experts.count), f"{at.name}.{part}")
        for part, matrix in (("gate_up", matrices.wide), ("down", matrices.down))
    )
    inputs, attributes = [at.x, at.logits, wide, None, down], at.attributes | {"normalize_routing_weights": 1}
    if at.experts.normalized:
        become(at.node, "MoE", inputs, attributes)
        return
    axis = initializer(at.graph, constant(np.array([-1], np.int64)), "experts.axis")
    names = [f"{at.name}.normalized"], [f"{at.name}.total"]
    (y,) = insert_before(at.node, "MoE", inputs, names[0], attributes, role="expert.sum", domain=CONTRIB)
    (total,) = insert_before(at.node, "ReduceSum", [at.top, axis], names[1], {"keepdims": 1}, role="expert.sum")
    become(at.node, "Mul", [y, total], domain="")
