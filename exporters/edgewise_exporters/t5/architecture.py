"""exporters, t5: a configuration resolved: every number that the graph is built from."""

from dataclasses import dataclass
from typing import Any

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.facts import Attention, Facts, Source
from edgewise_exporters.decoder.config import HARMLESS, Config

CONTEXT = 512  # tokens: what all of them were trained with; distances have no end, so a configuration may say more
HEAD = "lm_head.weight"
SCALE = 1.0  # of scores
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "silu": "silu"}
UNUSED = HARMLESS | {
    *("architectures", "classifier_dropout", "dropout_rate", "initializer_factor", "is_decoder", "output_past"),
    *("add_cross_attention", "attention_dropout", "use_past", "vocabulary", "layer_norm_eps"),
    *("task_specific_params", "tie_encoder_decoder", "dense_act_fn", "is_gated_act", "gradient_checkpointing"),
}


@dataclass(frozen=True)
class Architecture:
    """What the builder needs besides the facts."""

    facts: Facts
    intermediate_size: int
    norm_epsilon: float
    activation: str  # relu, gelu, gelu_tanh or silu
    gated: bool
    buckets: int  # of distances
    farthest: int  # distance: those beyond have its bucket
    scaled: bool  # what the decoder gives, by d_model ** -0.5, before the lm_head


def read_architecture(checkpoint: Checkpoint) -> Architecture:
    """The architecture of a checkpoint. Raises CheckpointError for a key that is wrong or not understood."""
    config = Config(checkpoint.config, where="config.json")
    config.must_be("is_encoder_decoder", True)
    scaled = _scaled(config)
    activation, gated = _activation(config)
    architecture = Architecture(
        facts=_facts(config, checkpoint, tied=scaled or HEAD not in checkpoint.tensors),
        intermediate_size=config.integer("d_ff"),
        norm_epsilon=config.number("layer_norm_epsilon", 1e-6),
        activation=activation,
        gated=gated,
        buckets=config.integer("relative_attention_num_buckets", 32, least=4),
        farthest=config.integer("relative_attention_max_distance", 128, most=100_000),
        scaled=scaled,
    )
    config.refuse_unread(UNUSED, advice="if it does not, leave it out with ignore_config (--ignore-config)")
    return architecture


def _facts(config: Config, checkpoint: Checkpoint, *, tied: bool) -> Facts:
    tokens = Config({**config.data, **{k: v for k, v in checkpoint.generation.items() if v is not None}}, where="")
    vocabulary, layers = config.integer("vocab_size"), config.integer("num_layers", most=10_000)
    heads, size = config.integer("num_heads", most=100_000), config.integer("d_kv")
    context = config.integer("n_positions", CONTEXT)
    attention = Attention(heads, heads, size, scale=SCALE, rotary=None, relative=True)
    start, pad = _token(config, tokens, "decoder_start_token_id"), _token(config, tokens, "pad_token_id")
    if start is None and (start := pad) is None:
        raise CheckpointError("config.json: 'decoder_start_token_id' is missing: with what does an answer begin?")
    return Facts(
        model_type=str(config.get("model_type")),
        vocab_size=vocabulary,
        hidden_size=config.integer("d_model"),
        context_length=context,
        attention=(attention,) * config.integer("num_decoder_layers", layers, most=10_000),
        eos=_tokens(tokens, "eos_token_id", vocabulary),
        pad=pad,
        tied=tied,
        task="text2text-generation",
        source=Source(layers=layers, heads=heads, head_dim=size, context_length=context, start=start),
    )


def _scaled(config: Config) -> bool:
    """Whether outputs are scaled: in T5 they are but where embedding and lm_head were said not to be tied.

    transformers 5 ties them always, as long as a file has no lm_head, and writes down what it was told before.
    """
    tied = config.flag("tie_word_embeddings", True)
    return config.flag("scale_decoder_outputs", tied) if config.get("model_type") == "t5" else False


def _activation(config: Config) -> tuple[str, bool]:
    """Of the MLP, and whether it is gated: "gated-gelu" has always been the approximate one."""
    stated = str(config.get("feed_forward_proj") or "relu")
    gate, _, name = stated.rpartition("-")
    name = "gelu_new" if stated == "gated-gelu" else name
    if gate not in ("", "gated") or name not in ACTIVATIONS:
        raise config.error("feed_forward_proj", f"one of {', '.join(ACTIVATIONS)}, or gated- and one of these")
    return ACTIVATIONS[name], bool(gate)


def _token(config: Config, generation: Config, key: str) -> int | None:
    found = _tokens(generation, key, config.integer("vocab_size"))
    return found[0] if found else None


def _tokens(config: Config, key: str, vocabulary: int) -> tuple[int, ...]:
    value: Any = config.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    for token in values:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocabulary:
            raise CheckpointError(f"'{key}' is {value!r}; expected tokens below vocab_size, {vocabulary}")
    return tuple(values)
