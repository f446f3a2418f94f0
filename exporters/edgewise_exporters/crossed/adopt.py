"""exporters, crossed: from the graphs of an encoder-decoder as optimum traces them to one that we can work with."""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError, GraphError
from edgewise.facts import Attention, Facts, Source
from edgewise.graph import remark, set_facts
from edgewise.options import known
from edgewise_exporters.crossed.join import joined
from edgewise_exporters.crossed.proof import TOLERANCE, difference, scores, some_tokens, traced_scores
from edgewise_exporters.foreign.adopt import TIDY
from edgewise_exporters.foreign.tied import TieHead
from edgewise_exporters.t5 import T5

WIDTHS = (4, 1)  # tokens of a step, the first of which follow nothing

# What configurations call one thing.
LAYERS = ("decoder_layers", "num_decoder_layers", "num_layers")
READING = ("encoder_layers", "num_layers")
HEADS = ("decoder_attention_heads", "num_heads")
WIDTH = ("d_model", "hidden_size")
CONTEXT = ("max_position_embeddings", "n_positions", "max_length")


def join(encoder: ir.Model, first: ir.Model, step: ir.Model, checkpoint: Checkpoint) -> ir.Model:
    """One graph that computes what the three do: that of `t5` where it is one, otherwise with their operators.

    It is run beside them on random tokens. Raises CheckpointError for a configuration that does not describe them, and
    GraphError where scores differ by more than 1e-4.
    """
    source, answer = some_tokens(_number("vocab_size", ("vocab_size",), checkpoint.config))
    expected = traced_scores(encoder, first, step, source, answer)
    exporter = T5()
    recognised = exporter.supports(checkpoint)
    model = exporter.export(checkpoint) if recognised else _as_traced(encoder, first, step, checkpoint)
    found = max(difference(scores(model, source, answer, width=width), expected) for width in WIDTHS)
    if not found <= TOLERANCE:
        what = "config.json describes" if recognised else "they are joined to"
        raise GraphError(f"the traced graphs score {found:.2g} (relative) away from what {what}")
    if recognised:
        remark(model, "crossed", f"The traced graphs were recognised: canonical operators score within {found:.1g}.")
    return model


def _as_traced(encoder: ir.Model, first: ir.Model, step: ir.Model, checkpoint: Checkpoint) -> ir.Model:
    for model in (encoder, first, step):
        for tidy in TIDY:
            tidy(model)
    facts = _facts(step, checkpoint)
    model = joined(encoder, first, step, facts.layers)
    set_facts(model, facts)
    TieHead()(model)
    return model


def _facts(step: ir.Model, checkpoint: Checkpoint) -> Facts:
    """What is known of the decoder without a look at its attention."""
    config, given = checkpoint.config, {k: v for k, v in checkpoint.generation.items() if v is not None}
    tokens = {**config, **given}
    vocabulary, context = _number("vocab_size", ("vocab_size",), config), _number("context length", CONTEXT, config)
    layers, heads = _number("layers", LAYERS, config), _number("heads", HEADS, config)
    sizes = {str(value.name): value.shape for value in step.graph.inputs}
    shape = sizes.get(f"past_key_values.{layers - 1}.decoder.key")
    if shape is None or f"past_key_values.{layers}.decoder.key" in sizes or shape[1] != heads:
        raise CheckpointError(f"config.json says {layers} layers of {heads} heads, and the traced decoder has others")
    if not isinstance(dim := shape[3], int):
        raise CheckpointError("the traced decoder does not say how large a head is")
    start = _tokens("decoder_start_token_id", tokens, vocabulary)
    if not start:
        raise CheckpointError("config.json: 'decoder_start_token_id' is missing: with what does an answer begin?")
    reading = _number("layers of the encoder", READING, config)
    return Facts(
        model_type=str(config.get("model_type")),
        vocab_size=vocabulary,
        hidden_size=_number("hidden size", WIDTH, config),
        context_length=context,
        attention=(Attention(heads, heads, dim, scale=None, rotary=None),) * layers,
        eos=_tokens("eos_token_id", tokens, vocabulary),
        pad=next(iter(_tokens("pad_token_id", tokens, vocabulary)), None),
        task="text2text-generation",
        source=Source(reading, heads, dim, context, start[0]),
    )


def _number(what: str, keys: Sequence[str], config: Mapping[str, Any]) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    raise CheckpointError(f"config.json states no {what}; it would be one of {known(keys)}")


def _tokens(key: str, table: Mapping[str, Any], vocabulary: int) -> tuple[int, ...]:
    value = table.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    for token in values:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocabulary:
            raise CheckpointError(f"'{key}' is {value!r}; expected tokens below vocab_size, {vocabulary}")
    return tuple(values)
