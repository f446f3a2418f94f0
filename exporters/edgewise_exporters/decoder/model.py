"""exporters, decoder: the whole canonical graph, from tokens to logits."""

import onnx_ir as ir

from edgewise.graph import set_facts
from edgewise.tensors import transpose
from edgewise_exporters.decoder.architecture import Architecture
from edgewise_exporters.decoder.attention import attend
from edgewise_exporters.decoder.builder import TOKENS, Builder
from edgewise_exporters.decoder.layer import Layer
from edgewise_exporters.decoder.mlp import feed_forward
from edgewise_exporters.decoder.stream import Shared
from edgewise_exporters.decoder.weights import Weights


def build_model(architecture: Architecture, weights: Weights) -> ir.Model:
    """The graph of a decoder. Every tensor that it needs is taken from `weights`."""
    builder, facts = Builder(), architecture.facts
    shared = Shared(builder, facts)
    around = Layer(builder, weights, architecture, None, "model.")
    table = builder.initializer(
        weights.take("model.embed_tokens.weight", facts.vocab_size, facts.hidden_size), "model.embed_tokens.weight"
    )
    hidden = _embed(around, table, shared.tokens)
    for index in range(facts.layers):
        layer = Layer(builder, weights, architecture, index, f"model.layers.{index}.")
        hidden = feed_forward(layer, attend(layer, hidden, shared))
    hidden = around.norm("norm", hidden, size=facts.hidden_size, module="norm")
    builder.outputs.insert(0, _head(around, hidden, table))
    model = builder.model(facts.model_type)
    set_facts(model, facts)
    return model


def _embed(around: Layer, table: ir.Value, tokens: ir.Value) -> ir.Value:
    architecture = around.architecture
    shape, scale = (*TOKENS, architecture.facts.hidden_size), architecture.embedding_scale
    name = "hidden.0" if scale == 1 else "model.embed_tokens"
    embedded = around.builder.op("Gather", table, tokens, name=name, shape=shape, role="embedding")
    if scale == 1:
        return embedded
    factor = around.builder.scalar(scale, "model.embed_tokens.scale")
    return around.builder.op("Mul", embedded, factor, name="hidden.0", shape=shape, role="embedding.scale")


def _head(around: Layer, hidden: ir.Value, table: ir.Value) -> ir.Value:
    """Logits `[batch, sequence, vocabulary]`; a tied head multiplies by the transposed embedding."""
    builder, weights, facts = around.builder, around.weights, around.architecture.facts
    cap = around.architecture.logits_softcap
    if facts.tied:
        weights.take_copy("lm_head.weight", "model.embed_tokens.weight")
        shape = (facts.hidden_size, facts.vocab_size)
        weight = builder.op(
            "Transpose", table, name="lm_head.transposed", shape=shape, role="lm_head.weight", perm=[1, 0]
        )
    else:
        matrix = weights.take("lm_head.weight", facts.vocab_size, facts.hidden_size)
        weight = builder.initializer(transpose(matrix), "lm_head.weight")
    shape = (*TOKENS, facts.vocab_size)
    logits = builder.op("MatMul", hidden, weight, name="lm_head" if cap else "logits", shape=shape, role="lm_head")
    return _cap(builder, logits, cap) if cap else logits


def _cap(builder: Builder, logits: ir.Value, cap: float) -> ir.Value:
    shape, limit = tuple(logits.shape or ()), builder.scalar(cap, "logits.cap")
    scaled = builder.op("Div", logits, limit, name="logits.scaled", shape=shape, role="logits")  # type: ignore[arg-type]
    bent = builder.op("Tanh", scaled, name="logits.bent", shape=shape, role="logits")  # type: ignore[arg-type]
    return builder.op("Mul", bent, limit, name="logits", shape=shape, role="logits")  # type: ignore[arg-type]
