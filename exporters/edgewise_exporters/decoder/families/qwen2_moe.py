"""exporters, decoder, families: Qwen1.5-MoE and Qwen2, sparse (arXiv 2407.10671): experts beside a shared one."""

from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.layers import lower_layers_alternate
from edgewise_exporters.decoder.mixture import TRAINING, Mixture

FAMILY = Family(
    "qwen2_moe",
    attention_bias="qkv_configured",
    layer_types=lower_layers_alternate,
    mixture=Mixture(size_key="moe_intermediate_size", some_layers=True, shared=True),
    defaults={"max_window_layers": 28, "num_experts_per_tok": 4, "sliding_window": 4096, "use_sliding_window": False},
    unused=TRAINING,
)
