"""exporters, foreign: the facts of a decoder graph: from its shapes, and from what config.json says of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.companions import Companions
from edgewise.errors import CheckpointError
from edgewise.facts import Attention, Facts
from edgewise.options import known
from edgewise_exporters.foreign.interface import Interface

# What configurations call one thing, by the thing.
HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
WIDTH = ("hidden_size", "n_embd", "d_model")
CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
VOCABULARY = ("vocab_size",)

TOKENIZER, LONGEST, MANY = "tokenizer_config.json", "model_max_length", 1 << 31


def describe(model: ir.Model, interface: Interface, checkpoint: Checkpoint) -> Facts:
    """What is known of a decoder without a look at its attention. CheckpointError where graph and config differ."""
    config, stated = checkpoint.config, _sizes(checkpoint.config)
    for name, ours, theirs in (
        ("layers", len(interface.cache), stated.get("layers")),
        ("heads of keys", interface.cache[0][0], stated.get("kv_heads")),
        ("head size", interface.cache[0][1], config.get("head_dim")),
        ("vocabulary", _last(model, "logits"), stated.get("vocabulary")),
    ):
        if None not in (ours, theirs) and ours != theirs:
            raise CheckpointError(f"the exported graph and config.json disagree: {name}: {ours} and {theirs}")
    heads = _needed("heads", HEADS, config)
    vocabulary, tokens = _needed("vocab_size", VOCABULARY, config), {**config, **_given(checkpoint.generation)}
    return Facts(
        model_type=str(config.get("model_type")),
        vocab_size=vocabulary,
        hidden_size=_needed("hidden size", WIDTH, config),
        context_length=_context(checkpoint),
        attention=tuple(_attention(heads, *sizes) for sizes in interface.cache),
        bos=next(iter(_tokens(tokens, "bos_token_id", vocabulary)), None),
        eos=_tokens(tokens, "eos_token_id", vocabulary),
        pad=next(iter(_tokens(tokens, "pad_token_id", vocabulary)), None),
    )


def _context(checkpoint: Checkpoint) -> int:
    """Tokens at most, by config.json or else by the tokenizer's: some positions have no end of their own (ALiBi)."""
    tokenizer = Companions(checkpoint).table(TOKENIZER) if TOKENIZER in checkpoint.companions else {}
    stated = {LONGEST: tokenizer.get(LONGEST, MANY), **checkpoint.config}
    if not isinstance(stated[LONGEST], int) or stated[LONGEST] >= MANY:  # which says: no limit
        del stated[LONGEST]
    return _needed("context length", (*CONTEXT, LONGEST), stated)


def _attention(heads: int, kv_heads: int, head_dim: int) -> Attention:
    if heads % kv_heads:
        raise CheckpointError(
            f"the exported graph and config.json disagree: {heads} heads, which {kv_heads} of keys do not divide"
        )
    return Attention(heads, kv_heads, head_dim, scale=None, rotary=None)


def _sizes(config: Mapping[str, Any]) -> dict[str, int]:
    names = {"layers": LAYERS, "kv_heads": KV_HEADS, "vocabulary": VOCABULARY}
    found = {what: [config[key] for key in keys if isinstance(config.get(key), int)] for what, keys in names.items()}
    return {what: values[0] for what, values in found.items() if values}


def _needed(what: str, keys: Sequence[str], config: Mapping[str, Any]) -> int:
    """A number that config.json has to state."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    raise CheckpointError(f"config.json states no {what}, and nor does the graph; it would be one of {known(keys)}")


def _last(model: ir.Model, name: str) -> int | None:
    """The last dimension of an output, if it is a number."""
    shapes = {str(value.name): value.shape for value in model.graph.outputs}
    shape = shapes[name]
    return shape[-1] if shape is not None and isinstance(shape[-1], int) else None


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _tokens(table: Mapping[str, Any], key: str, vocabulary: int) -> tuple[int, ...]:
    """One token, or several; those below 0 stand for none."""
    value = table.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    for token in values:
        if not isinstance(token, int) or isinstance(token, bool) or not -1 <= token < vocabulary:
            raise CheckpointError(f"'{key}' is {value!r}; expected tokens below vocab_size, {vocabulary}")
    return tuple(token for token in values if token >= 0)
