"""exporters, decoder, families: OLMo 2 (arXiv 2501.00656): norms after both blocks, and over whole queries and keys."""

from edgewise_exporters.decoder.family import QK_NORMS, Family

FAMILY = Family(
    "olmo2",
    norms={"attention.post_norm": "post_attention_layernorm", "mlp.post_norm": "post_feedforward_layernorm"} | QK_NORMS,
    qk_norm="full",
    attention_bias="configured",
    defaults={"rms_norm_eps": 1e-5},
)
