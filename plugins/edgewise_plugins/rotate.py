"""plugins: rotations folded into the weights (QuaRot, arXiv 2404.00456; R1 and R2 of SpinQuant, arXiv 2405.16406).

With Q a rotation of the residual stream, R one of each value head, and norm gains g moved into what reads the norm:

    embedding            E Q              adds to the stream
    q, k, v, gate, up    W diag(g) Q      read the stream
    o, down              Qᵀ W, Qᵀ b       add to the stream
    lm_head              W diag(g) Q
    v, its bias          Rᵀ W, Rᵀ b       of each head
    o                    W R              of each head

Outliers that sit in few channels are spread over all, which makes weights and activations easier to round. The model
computes what it did.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import Linear, Roles, get_facts, linears, role, set_facts
from edgewise.passes import Pass, context_of
from edgewise.quantized import BlockQuantized
from edgewise.tensors import constant, streamed, transpose
from edgewise_plugins.absorb import bias, only_gain, readers, replace
from edgewise_plugins.hadamard import random_rotation
from edgewise_plugins.noise import TOKENS, form_after, rounding_noise
from edgewise_plugins.views import Recent, scale_columns, turn_columns, turn_rows

if TYPE_CHECKING:
    from edgewise.calibration.calibration import Calibration

logger = logging.getLogger(__name__)

NORMS = ("attention.norm", "mlp.norm", "norm")
WRITERS = ("attention.o", "mlp.down")
AROUND = {*NORMS, "attention.residual", "mlp.residual", "embedding.scale", *WRITERS, *(f"{w}.bias" for w in WRITERS)}
HEAD = "lm_head.weight"
TURN = "lm_head.turn"


@dataclass(frozen=True)
class Rotate(Pass):
    """Rotates the residual stream and the value heads, so that no channel stands out; changes no output.

    For models whose norms are RMS norms before the blocks. A tied lm_head becomes a matrix of its own, since the final
    norm's gains go into it. Comes before the steps that measure or quantize. With a calibration text it is measured
    whether products of rounded weights and activations come closer by it, and else the model is left as it is.
    """

    name: ClassVar[str] = "rotate"

    seed: int = 0

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        context = context_of(model)
        if calibration := context.calibration:
            for _ in ("as it is", "turned"):
                calibration.expect_statistics(model, tokens=TOKENS)
            if not (context.dry or self._pays(model, calibration, context.following)):
                return ir.passes.PassResult(model, modified=False)
        self._turn(model)
        return ir.passes.PassResult(model, modified=True)

    def _pays(self, model: ir.Model, calibration: "Calibration", following: Sequence[Pass]) -> bool:
        """Whether there is less noise in the products of the model when it is turned."""
        turned = model.clone()
        self._turn(turned)
        before, after = (rounding_noise(each, calibration, form_after(following)) for each in (model, turned))
        said = "" if after < before else "; the model is left as it was"
        logger.info("rotate: rounding makes %.3g of a product noise, and %.3g before%s", after, before, said)
        return after < before

    def _turn(self, model: ir.Model) -> None:
        facts, recent = get_facts(model), Recent()
        turn_stream(model, random_rotation(facts.hidden_size, self.seed))
        roles, by_node = Roles.of(model), {linear.node: linear for linear in linears(model)}
        for layer in roles.layers():
            _turn_heads(roles, by_node, layer, facts.attention[layer].head_dim, recent, self.seed)


def turn_stream(model: ir.Model, turn: np.ndarray) -> None:
    """Rotate the residual stream by an orthogonal matrix, float32 `[hidden, hidden]`.

    A tied lm_head is tied no more, unless a matrix `lm_head.turn` between the final norm and it takes what comes in
    the way of that. Raises GraphError, which names what would not compute the same.
    """
    refuse_what_does_not_turn(model)
    if not Roles.of(model).maybe(TURN):
        _untie(model)
    roles, recent = Roles.of(model), Recent()
    by_node = {linear.node: linear for linear in linears(model)}
    embedding = by_node[roles.one("embedding")]
    embedding.replace(turn_columns(embedding.matrix, turn))
    for layer in [*roles.layers(), None]:
        for name in NORMS:
            if norm := roles.maybe(name, layer):
                _turn_readers(norm, readers(norm.outputs[0], by_node), turn)
        if layer is not None:
            for name in WRITERS:
                _turn_writer(roles, by_node, name, layer, turn, recent)
    if between := roles.maybe(TURN):
        by_node[between].replace(turn_rows(by_node[between].matrix, turn, recent))


def refuse_what_does_not_turn(model: ir.Model) -> None:
    """Raises GraphError, which names what would not compute the same after a rotation of the residual stream."""
    by_node = {linear.node: linear for linear in linears(model)}
    for linear in by_node.values():
        if isinstance(linear.matrix, BlockQuantized):
            raise GraphError(
                f"'{linear.name}' is quantized already ({linear.matrix.form}): rotate before quantizing, "
                "and a checkpoint that comes quantized not at all"
            )
    roles = Roles.of(model)
    for layer in roles.layers():
        for name in ("attention.v", *WRITERS):
            if roles.maybe(name, layer) not in by_node:
                raise GraphError(f"layer {layer} has no matrix product with role '{name}': it cannot be rotated")
    for node in model.graph:
        name = role(node) or ""
        if name.endswith(".cache"):
            raise _refusal(node, "it rounds what was measured before: 'quantize-cache' comes after 'rotate'")
        if name.endswith(".order"):
            raise _refusal(node, "what comes after has its input features in an order of its own")
        if name.endswith("post_norm"):
            raise _refusal(node, "a norm after a block does not let a rotation through")
        if name in NORMS:
            if node.op_type != "RMSNormalization":
                raise _refusal(node, f"a {node.op_type} does not let a rotation through")
            if not readers(node.outputs[0], by_node):
                raise _refusal(node, "something other than a matrix product reads it")
        for value in node.inputs:
            if value is not None and str(value.name).startswith("hidden.") and name not in AROUND:
                raise _refusal(node, f"it reads the residual stream '{value.name}' as it is")


def _refusal(node: ir.Node, why: str) -> GraphError:
    return GraphError(f"node '{node.name}' (role '{role(node)}') cannot be rotated: {why}")


def _untie(model: ir.Model) -> None:
    """Give a tied lm_head a matrix of its own: that of the embedding, as it is now."""
    turned = Roles.of(model).maybe("lm_head.weight")
    if turned is None:
        return
    embedding = next(linear for linear in linears(model) if linear.role == "embedding")
    tensor = transpose(embedding.matrix)
    weight = ir.Value(name=HEAD, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.dims), const_value=tensor)
    (node,) = turned.outputs[0].consumers()
    turned.outputs[0].name = f"{HEAD}.tied"
    model.graph.register_initializer(weight)
    node.replace_input_with(1, weight)
    model.graph.remove(turned, safe=True)
    set_facts(model, dataclasses.replace(get_facts(model), tied=False))
    logger.info("rotate: the lm_head is no longer the embedding: %s parameters more", f"{tensor.size:,}")


def _turn_readers(norm: ir.Node, linears: tuple[Linear, ...], turn: np.ndarray) -> None:
    """Move the norm's gains into what reads it, and turn the columns."""
    gain = only_gain(norm)
    gains = streamed(gain.const_value).numpy().astype(np.float32)
    for linear in linears:
        linear.replace(turn_columns(scale_columns(linear.matrix, gains), turn))
    replace(gain, constant(np.ones_like(gains)))


def _turn_writer(
    roles: Roles, by_node: Mapping[ir.Node, Linear], name: str, layer: int, turn: np.ndarray, recent: Recent
) -> None:
    linear = by_node[roles.one(name, layer)]
    linear.replace(turn_rows(linear.matrix, turn, recent))
    if vector := bias(roles, name, layer):
        replace(vector, turn_rows(streamed(vector.const_value), turn, recent))


def _turn_heads(
    roles: Roles, by_node: Mapping[ir.Node, Linear], layer: int, head_dim: int, recent: Recent, seed: int
) -> None:
    """R2: attention mixes the values of tokens, not of dimensions: each head may be turned before and back after."""
    turn = random_rotation(head_dim, seed)
    value, output = by_node[roles.one("attention.v", layer)], by_node[roles.one("attention.o", layer)]
    value.replace(turn_rows(value.matrix, turn, recent))
    if vector := bias(roles, "attention.v", layer):
        replace(vector, turn_rows(streamed(vector.const_value), turn, recent))
    output.replace(turn_columns(output.matrix, turn))
