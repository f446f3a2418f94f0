"""exporters, decoder: the gated linear unit (arXiv 2002.05202) of an MLP, and of each expert.

y = down(act(gate(x)) * up(x))
y = down(g * sigmoid(alpha * g) * (u + 1)), g = min(gate(x), limit), u = clip(up(x), -limit, limit)   where clamped
"""

from collections.abc import Callable

import onnx_ir as ir

from edgewise_exporters.decoder.architecture import Clamp
from edgewise_exporters.decoder.builder import TOKENS
from edgewise_exporters.decoder.layer import Layer

Linear = Callable[[str, ir.Value], ir.Value]  # a role and what is multiplied


def gated(layer: Layer, x: ir.Value, part: str, linear: Linear, *, name: str, size: int) -> ir.Value:
    """What the unit makes of `x`, with the roles `{part}.gate` and so on; `size` is its inner width."""
    gate, up = linear(f"{part}.gate", x), linear(f"{part}.up", x)
    if part == "expert" and (clamp := layer.architecture.clamp):
        active, up = _clamped(layer, gate, up, clamp, name, size)
    else:
        active = _activate(layer, gate, part, name, size)
    product = layer.op(f"{part}.product", "Mul", active, up, name=f"{name}.product", shape=(*TOKENS, size))
    return linear(f"{part}.down", product)


def _activate(layer: Layer, x: ir.Value, part: str, name: str, size: int) -> ir.Value:
    role, shape = f"{part}.activation", (*TOKENS, size)
    if layer.architecture.activation == "silu":
        gate = layer.op(role, "Sigmoid", x, name=f"{name}.sigmoid", shape=shape)
        return layer.op(role, "Mul", x, gate, name=f"{name}.activation", shape=shape)
    approximate = "tanh" if layer.architecture.activation == "gelu_tanh" else "none"
    return layer.op(role, "Gelu", x, name=f"{name}.activation", shape=shape, approximate=approximate)


def _clamped(
    layer: Layer, gate: ir.Value, up: ir.Value, clamp: Clamp, name: str, size: int
) -> tuple[ir.Value, ir.Value]:
    """Both sides of the product."""
    number = layer.builder.scalar
    limits = number(-clamp.limit, "swiglu.least"), number(clamp.limit, "swiglu.most")

    def op(role: str, op_type: str, *inputs: ir.Value, what: str) -> ir.Value:
        return layer.op(role, op_type, *inputs, name=f"{name}.{what}", shape=(*TOKENS, size))

    gate = op("expert.activation", "Min", gate, limits[1], what="gate_limited")
    steep = op("expert.activation", "Mul", gate, number(clamp.alpha, "swiglu.alpha"), what="steep")
    share = op("expert.activation", "Sigmoid", steep, what="sigmoid")
    active = op("expert.activation", "Mul", gate, share, what="activation")
    up = op("expert.product", "Clip", up, *limits, what="up_limited")
    return active, op("expert.product", "Add", up, number(1.0, "swiglu.one"), what="up_raised")
