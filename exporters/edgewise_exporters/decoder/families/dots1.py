"""exporters, decoder, families: dots.llm1 (arXiv 2506.05767): experts chosen by sigmoids, some of them shared; a norm
on each head of queries and keys."""

from edgewise_exporters.decoder.family import PRE_NORMS, QK_NORMS, Family
from edgewise_exporters.decoder.layers import later_layers_slide
from edgewise_exporters.decoder.mixture import SIGMOID, TRAINING

FAMILY = Family(
    "dots1",
    norms={**PRE_NORMS, **QK_NORMS},
    qk_norm="head",
    attention_bias="configured",
    layer_types=later_layers_slide,
    mixture=SIGMOID,
    defaults={"first_k_dense_replace": 0, "max_window_layers": 62, "sliding_window": 4096},
    unused=TRAINING,
)
