"""exporters, decoder, families: Qwen3, sparse (arXiv 2505.09388): experts; a norm on each head of q and k."""

from edgewise_exporters.decoder.family import PRE_NORMS, QK_NORMS, Family
from edgewise_exporters.decoder.layers import all_layers_slide
from edgewise_exporters.decoder.mixture import TRAINING, Mixture
from edgewise_exporters.decoder.sparse import every_nth_layer

FAMILY = Family(
    "qwen3_moe",
    norms={**PRE_NORMS, **QK_NORMS},
    qk_norm="head",
    attention_bias="configured",
    layer_types=all_layers_slide,
    mixture=Mixture(size_key="moe_intermediate_size", sparse=every_nth_layer),
    defaults={"num_experts_per_tok": 8, "sliding_window": 4096, "use_sliding_window": False},
    unused=TRAINING | {"max_window_layers"},
)
