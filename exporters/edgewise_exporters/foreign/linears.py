"""exporters, foreign: the matrix products of a decoder, with the roles that they play and the layers they are in.

Roles are told by what a product leads to before the next one: keys, values or queries of a layer (more than one of
these: `attention.qkv`), or the logits; or by what it comes from: `attention.o` from what a layer's attention gives,
`mlp.down` from products of the MLP alone. Of two products of one value, `mlp.gate` is the one that an activation bends.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.graph import get_facts, mark
from edgewise.graph import role as role_of
from edgewise.passes import Pass
from edgewise_exporters.foreign.flow import is_linear
from edgewise_exporters.foreign.places import Places

BENT = ("Elu", "Erf", "Gelu", "HardSwish", "LeakyRelu", "QuickGelu", "Relu", "Sigmoid", "Softplus", "Swish", "Tanh")
KEPT = ("Cast", "Reshape", "Unsqueeze")  # of token numbers on their way to the embedding


@dataclass(frozen=True)
class MarkLinears(Pass):
    """Roles and layers for every product with a constant matrix, its bias, and the embedding."""

    name: ClassVar[str] = "foreign-mark-linears"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if get_facts(model).stated:  # then they are marked, and their attention is one operator
            return ir.passes.PassResult(model, False)
        places, modified = Places.of(model), False
        for node in model.graph:
            before = dict(node.metadata_props)
            if is_linear(node):
                role, layer = _place(places, node)
                node.name = _module(node)
                mark(node, role, layer)
                for add in _biases(node):
                    mark(add, f"{role}.bias", layer)
            elif _is_embedding(node):
                mark(node, "embedding")
            modified |= before != dict(node.metadata_props)
        return ir.passes.PassResult(model, modified)


def _module(node: ir.Node) -> str:
    """The name of a product as its module's, of "/model/layers.0/mlp/up_proj/MatMul"."""
    return str(node.name).strip("/").removesuffix("/MatMul").replace("/", ".")


def _place(places: Places, node: ir.Node) -> tuple[str, int | None]:
    """Role and layer. Those of the products before it are known."""
    after = places.after(node)
    if places.gives_logits(node, after):
        return "lm_head", None
    sides = {side: places.of_side(side, after) for side in ("q", "k", "v")}
    found = {side: layer for side, layer in sides.items() if layer is not None}
    if found:
        return f"attention.{next(iter(found)) if len(found) == 1 else 'qkv'}", next(iter(found.values()))
    makers = places.before(node)
    mixed = places.of_side("o", makers)
    if mixed is not None:
        return "attention.o", mixed
    layer = places.layer(node)
    if layer is None:
        return "embedding.projection", None
    roles = {role_of(maker) for maker in makers if is_linear(maker)}
    if roles and roles <= {"mlp.gate", "mlp.up"}:
        return "mlp.down", layer
    return ("mlp.gate" if _is_gate(places, node) else "mlp.up"), layer


def _is_gate(places: Places, node: ir.Node) -> bool:
    """Whether an activation bends it, and not another product of the same value."""
    assert node.inputs[0] is not None
    others = [user for user in node.inputs[0].consumers() if is_linear(user) and user is not node]
    return _is_bent(places, node) and any(not _is_bent(places, other) for other in others)


def _is_bent(places: Places, node: ir.Node) -> bool:
    return any(user.op_type in BENT for user in places.after(node))


def _biases(node: ir.Node) -> Iterator[ir.Node]:
    """The addition of a constant vector to what a product gives."""
    product = node.outputs[0]
    for user in product.consumers():
        others = [value for value in user.inputs if value is not product]
        if user.op_type == "Add" and others and others[0] is not None and others[0].is_initializer():
            yield user


def _is_embedding(node: ir.Node) -> bool:
    """Whether it looks tokens up in a table."""
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
        return False
    table, ids = node.inputs
    while ids is not None and (maker := ids.producer()) and maker.op_type in KEPT:
        ids = maker.inputs[0]
    return table is not None and table.is_initializer() and ids is not None and ids.name == "input_ids"
