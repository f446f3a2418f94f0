"""exporters, decoder, families: Qwen3, dense (arXiv 2505.09388): a norm on each head of queries and keys."""

from edgewise_exporters.decoder.family import PRE_NORMS, QK_NORMS, Family
from edgewise_exporters.decoder.layers import upper_layers_slide

FAMILY = Family(
    "qwen3",
    norms={**PRE_NORMS, **QK_NORMS},
    qk_norm="head",
    attention_bias="configured",
    layer_types=upper_layers_slide,
    defaults={"head_dim": 128, "max_window_layers": 28, "sliding_window": 4096, "use_sliding_window": False},
)
