"""targets, ort: numbers that are added to attention's scores, by distance, and the attention of an encoder."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.bundle.manifest import CPU
from edgewise.errors import GraphError, LoweringError
from edgewise.facts import Attention
from edgewise.graph import role
from edgewise.passes import context_of
from edgewise_targets.step import Step, become


@dataclass(frozen=True)
class FuseEncoder(Step):
    """Attention of an encoder as MultiHeadAttention: no cache, no mask, and an input for what is added to scores."""

    name: ClassVar[str] = "ort-encoder-attention"

    def rewrite(self, model: ir.Model) -> bool:
        nodes = [node for node in model.graph if node.op_type == "Attention" and role(node) == "encoder.attention"]
        for node in nodes:
            heads, scale = node.attributes.get_int("q_num_heads", 1), node.attributes.get_float("scale", 1.0)
            inputs = [*node.inputs[:3], None, None, node.inputs[3]]
            become(node, "MultiHeadAttention", inputs, {"num_heads": heads, "scale": scale})
        return bool(nodes)


def take_relative(model: ir.Model, node: ir.Node, spec: Attention, *, layer: int) -> ir.Value | None:
    """What a layer adds to its scores, `[batch, heads, sequence, total]`, where it does; without the mask.

    Raises LoweringError for a target that computes on anything but a processor: its kernels are not proven here.
    """
    mask = node.inputs[3]
    masked = mask.producer() if mask is not None else None
    if spec.relative != (masked is not None and masked.op_type == "Where"):
        raise GraphError(f"layer {layer}: the facts say relative = {spec.relative}, and the graph says otherwise")
    if not spec.relative or masked is None:
        return None
    target = context_of(model).target
    if target and (name := target.providers[0].name) != CPU.name:
        raise LoweringError(
            f"target '{target.name}' runs on {name}; the dialect 'ort' adds numbers by distance to scores "
            f"(relative = True) on {CPU.name} only"
        )
    return masked.inputs[1]
