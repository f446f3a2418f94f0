"""targets, ort: sinks of attention heads, which GroupQueryAttention takes as an input."""

import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.facts import Attention
from edgewise.graph import Roles


def take_sinks(node: ir.Node, spec: Attention, roles: Roles, *, layer: int) -> ir.Value | None:
    """The sinks of a layer, `[heads]`, where it has them; its attention then gives what nodes after it made of it."""
    after = roles.all("attention.sink", layer)
    if spec.sinks != bool(after):
        raise GraphError(f"layer {layer}: the facts say sinks = {spec.sinks}, and the graph's nodes say otherwise")
    if not after:
        return None
    (sinks,) = (step.inputs[1] for step in after if step.op_type == "Sub")
    ir.convenience.replace_all_uses_with(after[-1].outputs[0], node.outputs[0])
    for step in reversed(after):
        assert step.graph is not None
        step.graph.remove(step, safe=True)
    node.resize_outputs(3)
    return sinks
