"""exporters, decoder, families: FlexOlmo (arXiv 2507.07024): experts of OLMoE between the norms of OLMo 2."""

from edgewise_exporters.decoder.families.olmo2 import FAMILY as OLMO2
from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.mixture import TRAINING, Mixture

FAMILY = Family(
    "flex_olmo",
    norms=OLMO2.norms,
    qk_norm="full",
    attention_bias="configured",
    rotary={"global": ("rope_theta", 500_000.0)},
    mixture=Mixture(),
    defaults={"num_experts_per_tok": 5},
    unused=TRAINING,
)
