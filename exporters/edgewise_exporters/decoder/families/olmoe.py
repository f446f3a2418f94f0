"""exporters, decoder, families: OLMoE (arXiv 2409.02060): many small experts, and norms over whole queries and keys."""

from edgewise_exporters.decoder.family import PRE_NORMS, QK_NORMS, Family
from edgewise_exporters.decoder.mixture import TRAINING, Mixture

FAMILY = Family(
    "olmoe",
    norms={**PRE_NORMS, **QK_NORMS},
    qk_norm="full",
    attention_bias="configured",
    mixture=Mixture(),
    defaults={"rms_norm_eps": 1e-5, "num_experts_per_tok": 8},
    unused=TRAINING,
)
