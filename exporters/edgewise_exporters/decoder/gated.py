"""exporters, decoder: the gated linear unit (arXiv 2002.05202) of an MLP, and of each expert."""

from collections.abc import Callable

import onnx_ir as ir

from edgewise_exporters.decoder.builder import TOKENS
from edgewise_exporters.decoder.layer import Layer

Linear = Callable[[str, ir.Value], ir.Value]  # a role and what is multiplied


def gated(layer: Layer, x: ir.Value, part: str, linear: Linear, *, name: str, size: int) -> ir.Value:
    """`down(act(gate(x)) * up(x))`, with the roles `{part}.gate` and so on; `size` is its inner width."""
    gate, up = linear(f"{part}.gate", x), linear(f"{part}.up", x)
    active, shape = _activate(layer, gate, part, name, size), (*TOKENS, size)
    return linear(f"{part}.down", layer.op(f"{part}.product", "Mul", active, up, name=f"{name}.product", shape=shape))


def _activate(layer: Layer, x: ir.Value, part: str, name: str, size: int) -> ir.Value:
    role, shape = f"{part}.activation", (*TOKENS, size)
    if layer.architecture.activation == "silu":
        gate = layer.op(role, "Sigmoid", x, name=f"{name}.sigmoid", shape=shape)
        return layer.op(role, "Mul", x, gate, name=f"{name}.activation", shape=shape)
    approximate = "tanh" if layer.architecture.activation == "gelu_tanh" else "none"
    return layer.op(role, "Gelu", x, name=f"{name}.activation", shape=shape, approximate=approximate)
