"""exporters, decoder: a configuration resolved against its family: every number that the graph is built from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.facts import Attention, Facts
from edgewise_exporters.decoder.config import HARMLESS, Config
from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.layers import SLIDING, rotating
from edgewise_exporters.decoder.mixture import read_experts, read_shared
from edgewise_exporters.decoder.packed.config import read_packing
from edgewise_exporters.decoder.packed.format import Packing
from edgewise_exporters.decoder.rope import LONGEST, reach, read_rotary

ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}


@dataclass(frozen=True)
class Clamp:
    """The numbers of a gated unit that is clamped: see `gated.py`."""

    alpha: float
    limit: float


@dataclass(frozen=True)
class Architecture:
    """What the builder needs besides the family and the facts."""

    family: Family
    facts: Facts
    intermediate_size: int
    norm_epsilon: float
    activation: str  # silu, gelu or gelu_tanh
    attention_biases: frozenset[str]  # roles of the projections that have one
    mlp_bias: bool
    packing: Packing | None = None  # how linear weights are stored that others have quantized
    embedding_scale: float = 1.0
    logits_softcap: float = 0.0
    expert_size: int = 0  # the inner width of an expert
    shared_size: int = 0  # of the one that every token is given to
    clamp: Clamp | None = None  # of experts
    left_out: tuple[str, ...] = ()  # paths of modules that are not computed


def read_architecture(checkpoint: Checkpoint, family: Family) -> Architecture:
    """The architecture of a checkpoint. Raises CheckpointError for a key that is wrong or not understood."""
    defaults = {"rms_norm_eps": 1e-6, **family.defaults}
    config = Config(checkpoint.config, where="config.json", defaults=defaults)
    _refuse_other_attention(config)
    architecture = Architecture(
        family=family,
        facts=_facts(config, checkpoint.generation, family),
        intermediate_size=config.integer("intermediate_size"),
        norm_epsilon=config.number("rms_norm_eps"),
        activation=_activation(config, family),
        attention_biases=_attention_biases(config, family),
        mlp_bias=family.mlp_bias == "configured" and config.flag("mlp_bias", False),
        packing=read_packing(config, mxfp4=family.mixture is not None and family.mixture.stacks == "columns"),
        embedding_scale=config.integer("hidden_size") ** 0.5 if family.scaled_embedding else 1.0,
        logits_softcap=_softcap(config, family.logits_softcap_key),
        expert_size=config.integer(family.mixture.size_key) if family.mixture else 0,
        shared_size=read_shared(config, family.mixture) if family.mixture else 0,
        clamp=_clamp(config) if family.mixture and family.mixture.clamped else None,
        left_out=_left_out(config, family),
    )
    config.refuse_unread(
        HARMLESS | family.unused, advice="if it does not, leave it out with ignore_config (--ignore-config)"
    )
    return architecture


def _facts(config: Config, generation: Mapping[str, Any], family: Family) -> Facts:
    attention = _attention(config, family)
    rotary = read_rotary(config, family, attention[0].head_dim)
    used = {a.rotary for a in attention}
    context = config.integer("max_position_embeddings", most=LONGEST)
    vocabulary = config.integer("vocab_size")
    tokens = Config({**config.data, **{key: value for key, value in generation.items() if value is not None}}, where="")
    return Facts(
        model_type=family.model_type,
        vocab_size=vocabulary,
        hidden_size=config.integer("hidden_size"),
        context_length=reach(rotary, context),
        attention=attention,
        rotary={name: rotary[name] for name in rotary if name in used},
        bos=_first(_tokens(tokens, "bos_token_id", vocabulary)),
        eos=_tokens(tokens, "eos_token_id", vocabulary),
        pad=_first(_tokens(tokens, "pad_token_id", vocabulary)),
        tied=config.flag("tie_word_embeddings", False),
        experts=read_experts(config, family.mixture, len(attention)) if family.mixture else (),
    )


def _attention(config: Config, family: Family) -> tuple[Attention, ...]:
    layers = config.integer("num_hidden_layers", most=10_000)
    heads = config.integer("num_attention_heads", most=100_000)
    kv_heads = config.integer("num_key_value_heads", heads, most=heads)
    head_dim = config.integer("head_dim", config.integer("hidden_size") // heads)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"a divisor of num_attention_heads, {heads}")
    scale = (config.number(family.scale_key) if family.scale_key else head_dim) ** -0.5
    types = family.layer_types(config, layers)
    window = config.integer("sliding_window") if SLIDING in types else None
    rotates = rotating(config, layers) if family.nope_layers else (True,) * layers
    softcap, norm = _softcap(config, family.attention_softcap_key), _qk_norm(config, family)
    return tuple(
        Attention(
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            scale=scale,
            window=window if kind == SLIDING else None,
            softcap=softcap,
            rotary=_rotary_name(family, kind) if rotated else None,
            qk_norm=norm,
            sinks=family.sinks,
        )
        for kind, rotated in zip(types, rotates, strict=True)
    )


def _attention_biases(config: Config, family: Family) -> frozenset[str]:
    inner = frozenset({"attention.q", "attention.k", "attention.v"})
    if family.attention_bias == "qkv":
        return inner
    if family.attention_bias == "none" or not config.flag(family.attention_bias_key, False):
        return frozenset()
    return inner if family.attention_bias == "qkv_configured" else inner | {"attention.o"}


def _qk_norm(config: Config, family: Family) -> Literal["none", "head", "full"]:
    if family.qk_norm == "head_configured":
        return "head" if config.flag("use_qk_norm", False) else "none"
    return family.qk_norm


def _rotary_name(family: Family, layer_type: str) -> str:
    return "local" if layer_type == SLIDING and "local" in family.rotary else "global"


def _activation(config: Config, family: Family) -> str:
    name = config.choice(family.activation_key, ACTIVATIONS, "silu")
    if config.get("hidden_act") not in (None, name):
        raise config.error("hidden_act", f"'{name}', as {family.activation_key} says")
    return ACTIVATIONS[name]


def _clamp(config: Config) -> Clamp:
    if config.choice("hidden_act", ACTIVATIONS, "silu") != "silu":
        raise config.error("hidden_act", "'silu', the one that is clamped")
    return Clamp(config.number("swiglu_alpha", 1.702), config.number("swiglu_limit", 7.0))


def _left_out(config: Config, family: Family) -> tuple[str, ...]:
    """The layers behind the last one, which guess further tokens and are no part of the model itself."""
    if family.prediction_layers_key is None or config.get(family.prediction_layers_key) is None:
        return ()
    first, count = config.integer("num_hidden_layers"), config.integer(family.prediction_layers_key, least=0, most=100)
    return tuple(f"model.layers.{first + index}." for index in range(count))


def _softcap(config: Config, key: str | None) -> float:
    return 0.0 if key is None or config.get(key) is None else config.number(key)


def _refuse_other_attention(config: Config) -> None:
    config.must_be("is_causal", True)
    config.must_be("use_bidirectional_attention", False)


def _tokens(config: Config, key: str, vocabulary: int) -> tuple[int, ...]:
    """One token, or several, as generation_config.json or config.json give them."""
    value = config.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    for token in values:
        if not isinstance(token, int) or isinstance(token, bool) or not -1 <= token < vocabulary:
            raise CheckpointError(f"'{key}' is {value!r}; expected tokens below vocab_size, {vocabulary}")
    return tuple(token for token in values if token >= 0)


def _first(tokens: tuple[int, ...]) -> int | None:
    return tokens[0] if tokens else None
