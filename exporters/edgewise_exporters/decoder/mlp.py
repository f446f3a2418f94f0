"""exporters, decoder: the gated MLP block of a layer (arXiv 2002.05202), from its norm to its residual."""

import onnx_ir as ir

from edgewise_exporters.decoder.builder import TOKENS
from edgewise_exporters.decoder.layer import Layer


def feed_forward(layer: Layer, hidden: ir.Value) -> ir.Value:
    """The residual stream that leaves the layer, `hidden.{i + 1}`: `[batch, sequence, hidden]`."""
    architecture, index = layer.architecture, layer.index
    assert index is not None
    x = layer.block_norm("mlp.norm", hidden)
    gate, up = (layer.linear(role, x, bias=architecture.mlp_bias) for role in ("mlp.gate", "mlp.up"))
    wide = (*TOKENS, architecture.intermediate_size)
    product = layer.op("mlp.product", "Mul", _activate(layer, gate), up, name="mlp.product", shape=wide)
    y = layer.block_norm("mlp.post_norm", layer.linear("mlp.down", product, bias=architecture.mlp_bias))
    name, shape = f"hidden.{index + 1}", (*TOKENS, architecture.facts.hidden_size)
    return layer.builder.op("Add", hidden, y, name=name, shape=shape, role="mlp.residual", layer=index)


def _activate(layer: Layer, x: ir.Value) -> ir.Value:
    role, shape = "mlp.activation", (*TOKENS, layer.architecture.intermediate_size)
    if layer.architecture.activation == "silu":
        gate = layer.op(role, "Sigmoid", x, name="mlp.sigmoid", shape=shape)
        return layer.op(role, "Mul", x, gate, name="mlp.activation", shape=shape)
    approximate = "tanh" if layer.architecture.activation == "gelu_tanh" else "none"
    return layer.op(role, "Gelu", x, name="mlp.activation", shape=shape, approximate=approximate)
