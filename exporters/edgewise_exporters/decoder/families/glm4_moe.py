"""exporters, decoder, families: GLM-4.5 and 4.6 (arXiv 2508.06471): experts chosen by sigmoids, some of them shared;
rotation of a part of each head; layers that guess further tokens are left out."""

from edgewise_exporters.decoder.family import PRE_NORMS, QK_NORMS, Family
from edgewise_exporters.decoder.mixture import SIGMOID, TRAINING

FAMILY = Family(
    "glm4_moe",
    norms={**PRE_NORMS, **QK_NORMS},
    qk_norm="head_configured",
    attention_bias="qkv_configured",
    partial_rotary=True,
    mixture=SIGMOID,
    prediction_layers_key="num_nextn_predict_layers",
    defaults={
        "first_k_dense_replace": 1,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_experts_per_tok": 8,
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-5,
    },
    unused=TRAINING,
)
