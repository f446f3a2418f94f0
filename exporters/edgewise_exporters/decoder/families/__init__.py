"""exporters, decoder, families: one file per family, named by its model_type."""

from edgewise_exporters.decoder.families import (
    gemma2,
    gemma3_text,
    llama,
    mistral,
    mixtral,
    olmo2,
    olmoe,
    phi3,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_moe,
    smollm3,
)

FAMILIES = {
    module.FAMILY.model_type: module.FAMILY
    for module in (
        gemma2,
        gemma3_text,
        llama,
        mistral,
        mixtral,
        olmo2,
        olmoe,
        phi3,
        qwen2,
        qwen2_moe,
        qwen3,
        qwen3_moe,
        smollm3,
    )
}
