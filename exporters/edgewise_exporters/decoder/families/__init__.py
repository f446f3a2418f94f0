"""exporters, decoder, families: one file per family, named by its model_type."""

from edgewise_exporters.decoder.families import (
    gemma2,
    gemma3_text,
    llama,
    mistral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    smollm3,
)

FAMILIES = {
    module.FAMILY.model_type: module.FAMILY
    for module in (gemma2, gemma3_text, llama, mistral, olmo2, phi3, qwen2, qwen3, smollm3)
}
