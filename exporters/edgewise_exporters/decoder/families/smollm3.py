"""exporters, decoder, families: SmolLM3 (huggingface.co/blog/smollm3): every fourth layer has no position embedding."""

from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.layers import nope_layers_slide

FAMILY = Family(
    "smollm3",
    attention_bias="configured",
    mlp_bias="configured",
    layer_types=nope_layers_slide,
    rotary={"global": ("rope_theta", 2_000_000.0)},
    nope_layers=True,
    defaults={"tie_word_embeddings": True},
    unused=frozenset({"max_window_layers"}),
)
