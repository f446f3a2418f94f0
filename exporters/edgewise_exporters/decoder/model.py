"""exporters, decoder: the whole canonical graph, from tokens to logits."""

import onnx_ir as ir

from edgewise.graph import set_facts
from edgewise.tensors import transpose
from edgewise_exporters.decoder.architecture import Architecture
from edgewise_exporters.decoder.attention import attend
from edgewise_exporters.decoder.builder import TOKENS, Builder
from edgewise_exporters.decoder.layer import Layer
from edgewise_exporters.decoder.mlp import feed_forward
from edgewise_exporters.decoder.shared import Shared
from edgewise_exporters.decoder.weights import Weights

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def build_model(architecture: Architecture, weights: Weights) -> ir.Model:
    """The graph of a decoder. Every tensor that it needs is taken from `weights`."""
    builder, facts = Builder(), architecture.facts
    shared = Shared(builder, facts)
    table = builder.initializer(weights.take(EMBEDDING, facts.vocab_size, facts.hidden_size), EMBEDDING)
    hidden = _embed(builder, architecture, table, shared.tokens)
    for index in range(facts.layers):
        layer = Layer(builder, weights, architecture, index, f"model.layers.{index}.")
        hidden = feed_forward(layer, attend(layer, hidden, shared))
    around = Layer(builder, weights, architecture, None, "model.")
    hidden = around.norm("norm", hidden, module="norm", size=facts.hidden_size)
    builder.outputs.insert(0, _head(builder, architecture, weights, table, hidden))
    model = builder.model(facts.model_type)
    set_facts(model, facts)
    return model


def _embed(builder: Builder, architecture: Architecture, table: ir.Value, tokens: ir.Value) -> ir.Value:
    """The residual stream that enters the first layer, `hidden.0`."""
    shape, scale = (*TOKENS, architecture.facts.hidden_size), architecture.embedding_scale
    if scale == 1:
        return builder.op("Gather", table, tokens, name="hidden.0", shape=shape, role="embedding")
    x = builder.op("Gather", table, tokens, name="model.embed_tokens", shape=shape, role="embedding")
    factor = builder.scalar(scale, "model.embed_tokens.scale")
    return builder.op("Mul", x, factor, name="hidden.0", shape=shape, role="embedding.scale")


def _head(
    builder: Builder, architecture: Architecture, weights: Weights, table: ir.Value, hidden: ir.Value
) -> ir.Value:
    """Logits `[batch, sequence, vocabulary]`; a tied head multiplies by the transposed embedding."""
    facts, cap = architecture.facts, architecture.logits_softcap
    if facts.tied:
        weights.take_copy(HEAD, EMBEDDING)
        turned = (facts.hidden_size, facts.vocab_size)
        weight = builder.op("Transpose", table, name="lm_head.weight", shape=turned, role="lm_head.weight", perm=[1, 0])
    else:
        matrix = weights.take_matrix("lm_head", facts.vocab_size, facts.hidden_size)
        hidden = builder.ordered(hidden, matrix.order, "lm_head")
        weight = builder.initializer(transpose(matrix.tensor), HEAD)
    shape = (*TOKENS, facts.vocab_size)
    if not cap:
        return builder.op("MatMul", hidden, weight, name="logits", shape=shape, role="lm_head")
    limit = builder.scalar(cap, "logits.cap")
    x = builder.op("MatMul", hidden, weight, name="lm_head", shape=shape, role="lm_head")
    x = builder.op("Div", x, limit, name="logits.scaled", shape=shape, role="logits")
    x = builder.op("Tanh", x, name="logits.bent", shape=shape, role="logits")
    return builder.op("Mul", x, limit, name="logits", shape=shape, role="logits")
