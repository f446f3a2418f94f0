"""exporters, decoder: the gated MLP block of a layer (arXiv 2002.05202), from its norm to its residual."""

import onnx_ir as ir

from edgewise_exporters.decoder.builder import TOKENS
from edgewise_exporters.decoder.layer import Layer


def feed_forward(layer: Layer, hidden: ir.Value) -> ir.Value:
    """The residual stream that leaves the layer: `hidden.{i + 1}`, `[batch, sequence, hidden]`."""
    architecture, norms = layer.architecture, layer.architecture.family.norms
    size, wide, bias = architecture.facts.hidden_size, architecture.intermediate_size, architecture.mlp_bias
    x = hidden
    if module := norms.get("mlp.norm"):
        x = layer.norm("mlp.norm", x, size=size, module=module)
    gate, up = (layer.linear(role, x, bias=bias) for role in ("mlp.gate", "mlp.up"))
    active = _activate(layer, gate)
    product = layer.op("mlp.product", "Mul", active, up, name="mlp.product", shape=(*TOKENS, wide))
    y = layer.linear("mlp.down", product, bias=bias)
    if module := norms.get("mlp.post_norm"):
        y = layer.norm("mlp.post_norm", y, size=size, module=module)
    assert layer.index is not None
    return layer.builder.op(
        "Add",
        hidden,
        y,
        name=f"hidden.{layer.index + 1}",
        shape=(*TOKENS, size),
        role="mlp.residual",
        layer=layer.index,
    )


def _activate(layer: Layer, x: ir.Value) -> ir.Value:
    role, shape = "mlp.activation", (*TOKENS, layer.architecture.intermediate_size)
    if layer.architecture.activation == "silu":
        gate = layer.op(role, "Sigmoid", x, name="mlp.sigmoid", shape=shape)
        return layer.op(role, "Mul", x, gate, name="mlp.activation", shape=shape)
    approximate = "tanh" if layer.architecture.activation == "gelu_tanh" else "none"
    return layer.op(role, "Gelu", x, name="mlp.activation", shape=shape, approximate=approximate)
