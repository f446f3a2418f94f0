"""exporters, decoder: the MLP block of a layer, dense or a mixture of experts, from its norm to its residual."""

import onnx_ir as ir

from edgewise_exporters.decoder.builder import TOKENS
from edgewise_exporters.decoder.experts import mix
from edgewise_exporters.decoder.gated import gated
from edgewise_exporters.decoder.layer import Layer


def feed_forward(layer: Layer, hidden: ir.Value) -> ir.Value:
    """The residual stream that leaves the layer, `hidden.{i + 1}`: `[batch, sequence, hidden]`."""
    index, facts = layer.index, layer.architecture.facts
    assert index is not None
    y = layer.block_norm("mlp.post_norm", _block(layer, layer.block_norm("mlp.norm", hidden), index))
    name, shape = f"hidden.{index + 1}", (*TOKENS, facts.hidden_size)
    return layer.builder.op("Add", hidden, y, name=name, shape=shape, role="mlp.residual", layer=index)


def _block(layer: Layer, x: ir.Value, index: int) -> ir.Value:
    architecture = layer.architecture
    experts, mixture = architecture.facts.experts, architecture.family.mixture
    if experts and mixture and (own := experts[index]):
        return mix(layer, x, own, mixture)

    def linear(role: str, value: ir.Value) -> ir.Value:
        return layer.linear(role, value, bias=architecture.mlp_bias)

    return gated(layer, x, "mlp", linear, name="mlp", size=architecture.intermediate_size)
