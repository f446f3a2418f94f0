"""targets, ort: the mixture of experts of a layer as one operator, which computes only what a token is given to.

Gate and up become one matrix whose rows take turns (g0, u0, g1, u1 ...), the one form of a gated unit that ONNX
Runtime's CPU kernels know (1.31.1), and so do their biases.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from edgewise.graph import FLOAT, Linear, Roles, activations, get_facts, linears
from edgewise.tensors import Stacked
from edgewise_targets.codes import stacked_constants
from edgewise_targets.ort.biases import stacked_biases
from edgewise_targets.ort.gated import Numbers, gated_unit
from edgewise_targets.ort.interleave import FloatStacks, QuantizedStacks, stacks
from edgewise_targets.ort.routing import Routing
from edgewise_targets.step import CONTRIB, Step, become, initializer, insert_before

logger = logging.getLogger(__name__)


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
            unit = gated_unit(roles, index)
            matrices = stacks(*parts) if unit else None
            if matrices is None or unit is None:
                dense.append(str(index))
                continue
            place = Place(Routing(model.graph, node, roles, index, experts), parts, unit)
            if isinstance(matrices, FloatStacks):
                place.floats(matrices)
            else:
                exact = any(activations(part.node) == FLOAT for group in parts for part in group)
                place.quantized(matrices, 0 if exact else self.accuracy_level)
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


@dataclass(frozen=True)
class Place:
    """Where an operator comes: in the place of the node that adds up what the experts give."""

    routing: Routing
    parts: Sequence[Sequence[Linear]]  # gate, up and down of every expert
    unit: Numbers

    def quantized(self, matrices: QuantizedStacks, accuracy_level: int) -> None:
        """QMoE."""
        at, count, name = self.routing, self.routing.experts.count, self.routing.node.name
        choice, gates = at.quantized()
        wide = stacked_constants(at.graph, matrices.wide, count, f"{name}.gate_up")
        down = stacked_constants(at.graph, matrices.down, count, f"{name}.down")
        wide_bias, down_bias = stacked_biases(at.graph, self.parts, str(name))
        first, second = [*wide[:2], wide_bias], [*down[:2], down_bias]
        inputs = [self._x, choice, *first, *second, *[None] * 3, wide[2], down[2], None, gates]
        attributes = self._attributes | {
            "normalize_routing_weights": int(gates is None),
            "expert_weight_bits": matrices.wide.form.bits,
            "block_size": matrices.wide.form.block_size,
            "accuracy_level": accuracy_level,
            "weights_prepacked": 0,
            "quant_type": "int",
        }
        become(at.node, "QMoE", inputs, attributes)

    def floats(self, matrices: FloatStacks) -> None:
        """MoE, whose gates always add up to 1: what it gives is multiplied by what they do add up to."""
        at, count, name = self.routing, self.routing.experts.count, self.routing.node.name
        choice, total = at.floats()
        wide, down = (
            initializer(at.graph, Stacked(matrix, matrix.dims[0] // count), f"{name}.{part}")
            for part, matrix in (("gate_up", matrices.wide), ("down", matrices.down))
        )
        wide_bias, down_bias = stacked_biases(at.graph, self.parts, str(name))
        inputs = [self._x, choice, wide, wide_bias, down, down_bias]
        attributes = self._attributes | {"normalize_routing_weights": 1}
        if total is None:
            become(at.node, "MoE", inputs, attributes)
            return
        names, role = [f"{name}.normalized"], "expert.sum"
        (y,) = insert_before(at.node, "MoE", inputs, names, attributes, role=role, domain=CONTRIB)
        become(at.node, "Mul", [y, total], domain="")

    @property
    def _x(self) -> ir.Value | None:
        return self.parts[0][0].node.inputs[0]

    @property
    def _attributes(self) -> dict[str, int | float | str | Sequence[int]]:
        return {"activation_type": "swiglu", "swiglu_fusion": 1, "k": self.routing.experts.active, **self.unit}
