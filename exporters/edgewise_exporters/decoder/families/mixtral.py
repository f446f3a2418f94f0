"""exporters, decoder, families: Mixtral (arXiv 2401.04088): mistral with experts, whose gates add up to 1."""

from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.layers import sliding_layers
from edgewise_exporters.decoder.mixture import TRAINING, Mixture

FAMILY = Family(
    "mixtral",
    layer_types=sliding_layers,
    rotary={"global": ("rope_theta", 1_000_000.0)},
    mixture=Mixture(
        router="block_sparse_moe.gate",
        experts="block_sparse_moe.experts",
        modules={"expert.gate": "w1", "expert.up": "w3", "expert.down": "w2"},
        normalized="always",
    ),
    defaults={"rms_norm_eps": 1e-5, "num_experts_per_tok": 2},
    unused=TRAINING,
)
