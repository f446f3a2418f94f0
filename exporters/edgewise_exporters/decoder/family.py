"""exporters, decoder: what differs between model families, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgewise_exporters.decoder.layers import LayerTypes, full_layers
from edgewise_exporters.decoder.mixture import Mixture

PROJECTIONS = {
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.o": "self_attn.o_proj",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}

PRE_NORMS = {"attention.norm": "input_layernorm", "mlp.norm": "post_attention_layernorm"}

SANDWICH_NORMS = {
    "attention.norm": "input_layernorm",
    "attention.post_norm": "post_attention_layernorm",
    "mlp.norm": "pre_feedforward_layernorm",
    "mlp.post_norm": "post_feedforward_layernorm",
}

QK_NORMS = {"attention.q.norm": "self_attn.q_norm", "attention.k.norm": "self_attn.k_norm"}

ROPE_TYPES = {kind: kind for kind in ("default", "linear", "dynamic", "llama3", "yarn", "longrope")}


@dataclass(frozen=True)
class Family:
    """A family of decoders: the places where one differs from llama (arXiv 2302.13971), which is all the defaults."""

    model_type: str
    projections: Mapping[str, str] = field(default_factory=lambda: PROJECTIONS)  # roles that share a module slice it
    norms: Mapping[str, str] = field(default_factory=lambda: PRE_NORMS)  # a role that is absent is not computed
    norm_offset: float = 0.0  # added to every norm weight
    qk_norm: Literal["none", "head", "full", "head_configured"] = "none"
    attention_bias: Literal["none", "qkv", "configured", "qkv_configured"] = "none"
    attention_bias_key: str = "attention_bias"  # that configures it
    sinks: bool = False  # a score of its own for each head (arXiv 2309.17453)
    mlp_bias: Literal["none", "configured"] = "none"
    activation_key: str = "hidden_act"
    scale_key: str | None = None  # attention is scaled by its value ** -0.5; None: by head_dim ** -0.5
    attention_softcap_key: str | None = None
    logits_softcap_key: str | None = None
    scaled_embedding: bool = False  # multiplied by hidden_size ** 0.5
    layer_types: LayerTypes = full_layers
    rotary: Mapping[str, tuple[str, float]] = field(default_factory=lambda: {"global": ("rope_theta", 10_000.0)})
    rope_types: Mapping[str, str] = field(default_factory=lambda: ROPE_TYPES)  # as configured: as computed
    rope_default: Mapping[str, Any] = field(default_factory=dict)  # parameters where a configuration has none
    partial_rotary: bool = False
    mixture: Mixture | None = None  # of experts, in place of the MLP
    nope_layers: bool = False  # `no_rope_layers` of the configuration says which layers rotate
    prediction_layers_key: str | None = None  # how many layers follow that predict further tokens: they are left out
    defaults: Mapping[str, Any] = field(default_factory=dict)  # keys that may be absent, as transformers fills them
    unused: frozenset[str] = frozenset()  # keys of its configurations that change nothing
