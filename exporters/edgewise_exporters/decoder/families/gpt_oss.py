"""exporters, decoder, families: gpt-oss (arXiv 2508.10925): experts whose gated units are clamped, in MXFP4 or floats;
a sink for each head; every other layer slides."""

from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.layers import every_nth_is_full
from edgewise_exporters.decoder.mixture import TRAINING, Mixture

FAMILY = Family(
    "gpt_oss",
    attention_bias="configured",
    sinks=True,
    layer_types=every_nth_is_full(2),
    rotary={"global": ("rope_theta", 150_000.0)},
    rope_default={
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    },
    mixture=Mixture(
        router="mlp.router",
        router_bias=True,
        stacks="columns",
        count_key="num_local_experts",
        normalized="always",
        clamped=True,
    ),
    defaults={
        "attention_bias": True,
        "head_dim": 64,
        "num_experts_per_tok": 4,
        "rms_norm_eps": 1e-5,
        "sliding_window": 128,
    },
    unused=TRAINING | {"initial_context_length"},
)
