"""exporters, decoder, families: Llama 2 and 3 (arXiv 2302.13971, 2407.21783), and the many models in their format."""

from edgewise_exporters.decoder.family import Family

FAMILY = Family(
    "llama",
    attention_bias="configured",
    mlp_bias="configured",
    unused=frozenset({"is_llama_config", "max_sequence_length"}),
)
