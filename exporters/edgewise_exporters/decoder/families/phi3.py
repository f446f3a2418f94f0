"""exporters, decoder, families: Phi-3, Phi-3.5 and Phi-4 (arXiv 2404.14219): fused projections, LongRoPE, and
rotation of a part of each head."""

from edgewise_exporters.decoder.family import PROJECTIONS, Family
from edgewise_exporters.decoder.layers import sliding_layers

FAMILY = Family(
    "phi3",
    projections={
        **PROJECTIONS,
        **dict.fromkeys(("attention.q", "attention.k", "attention.v"), "self_attn.qkv_proj"),
        **dict.fromkeys(("mlp.gate", "mlp.up"), "mlp.gate_up_proj"),
    },
    layer_types=sliding_layers,
    rope_types={"default": "default", "longrope": "longrope", "su": "longrope", "yarn": "longrope"},
    partial_rotary=True,
    defaults={"original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
    unused=frozenset({"full_attn_mod", "interpolate_factor", "original_max_position_embeddings"}),
)
