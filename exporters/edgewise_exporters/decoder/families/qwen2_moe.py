"""exporters, decoder, families: Qwen1.5-MoE and Qwen2, sparse (arXiv 2407.10671): experts beside a shared one."""

from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.layers import lower_layers_alternate
from edgewise_exporters.decoder.mixture import TRAINING, Mixture, SharedExpert
from edgewise_exporters.decoder.sparse import every_nth_layer

SHARED = SharedExpert("mlp.shared_expert", "mlp.shared_expert_gate", "shared_expert_intermediate_size")

FAMILY = Family(
    "qwen2_moe",
    attention_bias="qkv_configured",
    attention_bias_key="qkv_bias",
    layer_types=lower_layers_alternate,
    mixture=Mixture(size_key="moe_intermediate_size", sparse=every_nth_layer, shared=SHARED),
    defaults={
        "max_window_layers": 28,
        "num_experts_per_tok": 4,
        "qkv_bias": True,
        "sliding_window": 4096,
        "use_sliding_window": False,
    },
    unused=TRAINING,
)
