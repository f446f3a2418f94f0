"""exporters, decoder, families: Qwen2 and Qwen2.5 (arXiv 2407.10671): biased q, k, v; upper layers may slide."""

from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.layers import upper_layers_slide

FAMILY = Family(
    "qwen2",
    attention_bias="qkv",
    layer_types=upper_layers_slide,
    defaults={"max_window_layers": 28, "sliding_window": 4096, "use_sliding_window": False},
)
