"""exporters, t5: the whole canonical graph: from a source text and the tokens of an answer to logits.

It is the graph of a decoder, with one input more, `encoder_input_ids` int64 [1, source]: one text, which all rows of
the batch answer. Between the two are the keys and values that the decoder makes of what the encoder gives,
`cross.{i}.key` and `cross.{i}.value` [1, heads, source, head_dim], where `edgewise.crossing` cuts.
"""

import onnx_ir as ir

from edgewise.crossing import SOURCE_IDS
from edgewise.graph import set_facts
from edgewise.tensors import transpose
from edgewise_exporters.decoder.builder import INT64, TOKENS, Builder
from edgewise_exporters.decoder.shared import Shared
from edgewise_exporters.decoder.weights import Weights
from edgewise_exporters.t5.architecture import HEAD, Architecture
from edgewise_exporters.t5.attention import attend, attend_around, attend_source, cross
from edgewise_exporters.t5.block import TEXT, Block
from edgewise_exporters.t5.distance import around, behind, bias_around, masked_bias
from edgewise_exporters.t5.mlp import feed_forward

EMBEDDING = "shared.weight"
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def build_model(architecture: Architecture, weights: Weights) -> ir.Model:
    """The graph of an encoder-decoder. Every tensor that it needs is taken from `weights`."""
    builder, facts = Builder(), architecture.facts
    shared = Shared(builder, facts)
    table = builder.initializer(weights.take(EMBEDDING, facts.vocab_size, facts.hidden_size), EMBEDDING)
    for copy in COPIES:
        weights.take_copy(copy, EMBEDDING)
    crossed = _encode(builder, architecture, weights, table)
    hidden = _decode(builder, architecture, weights, table, shared, crossed)
    builder.outputs.insert(0, _head(builder, architecture, weights, table, hidden))
    model = builder.model(facts.model_type)
    set_facts(model, facts)
    return model


def _encode(
    builder: Builder, architecture: Architecture, weights: Weights, table: ir.Value
) -> list[tuple[ir.Value, ir.Value]]:
    """Keys and values for each layer of the decoder."""
    facts = architecture.facts
    assert facts.source
    source = builder.input(SOURCE_IDS, INT64, TEXT)
    shape, numbers = (*TEXT, facts.hidden_size), around(architecture.buckets, architecture.farthest)
    x = builder.op("Gather", table, source, name="encoder.hidden.0", shape=shape, role="embedding")
    bias = bias_around(builder, source, _distances(builder, architecture, weights, "encoder"), numbers)
    for index in range(facts.source.layers):
        block = Block(builder, weights, architecture, "encoder", index)
        x = feed_forward(block, attend_around(block, x, bias), "1", f"encoder.hidden.{index + 1}")
    x = Block(builder, weights, architecture, "encoder").norm("norm", x, "final_layer_norm")
    return [cross(Block(builder, weights, architecture, "decoder", index), x) for index in range(facts.layers)]


def _decode(
    builder: Builder,
    architecture: Architecture,
    weights: Weights,
    table: ir.Value,
    shared: Shared,
    crossed: list[tuple[ir.Value, ir.Value]],
) -> ir.Value:
    """What the lm_head scores."""
    facts, shape = architecture.facts, (*TOKENS, architecture.facts.hidden_size)
    x = builder.op("Gather", table, shared.tokens, name="hidden.0", shape=shape, role="embedding")
    distances = _distances(builder, architecture, weights, "decoder")
    bias = masked_bias(builder, shared, distances, behind(architecture.buckets, architecture.farthest))
    for index in range(facts.layers):
        block = Block(builder, weights, architecture, "decoder", index)
        x = attend_source(block, attend(block, x, bias, shared), *crossed[index])
        x = feed_forward(block, x, "2", f"hidden.{index + 1}")
    x = Block(builder, weights, architecture, "decoder").norm("norm", x, "final_layer_norm")
    if not architecture.scaled:
        return x
    factor = builder.scalar(facts.hidden_size**-0.5, "decoder.scale")
    return builder.op("Mul", x, factor, name="decoder.scaled", shape=shape)


def _distances(builder: Builder, architecture: Architecture, weights: Weights, side: str) -> ir.Value:
    """The numbers that are learned, `[buckets, heads]`: those of the first block are every block's."""
    name = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    heads = architecture.facts.attention[0].heads
    return builder.initializer(weights.take(name, architecture.buckets, heads), name)


def _head(
    builder: Builder, architecture: Architecture, weights: Weights, table: ir.Value, hidden: ir.Value
) -> ir.Value:
    """Logits `[batch, sequence, vocabulary]`; a tied head multiplies by the transposed embedding."""
    facts = architecture.facts
    if facts.tied:
        weights.take_copy(HEAD, EMBEDDING)
        turned = (facts.hidden_size, facts.vocab_size)
        weight = builder.op("Transpose", table, name=HEAD, shape=turned, role=HEAD, perm=[1, 0])
    else:
        weight = builder.initializer(transpose(weights.take(HEAD, facts.vocab_size, facts.hidden_size)), HEAD)
    return builder.op("MatMul", hidden, weight, name="logits", shape=(*TOKENS, facts.vocab_size), role="lm_head")
