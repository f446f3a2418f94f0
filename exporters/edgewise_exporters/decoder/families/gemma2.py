"""exporters, decoder, families: Gemma 2 (arXiv 2408.00118): norms around both blocks, capped scores and logits."""

from edgewise_exporters.decoder.family import SANDWICH_NORMS, Family
from edgewise_exporters.decoder.layers import every_nth_is_full

FAMILY = Family(
    "gemma2",
    norms=SANDWICH_NORMS,
    norm_offset=1.0,
    attention_bias="configured",
    activation_key="hidden_activation",
    scale_key="query_pre_attn_scalar",
    attention_softcap_key="attn_logit_softcapping",
    logits_softcap_key="final_logit_softcapping",
    scaled_embedding=True,
    layer_types=every_nth_is_full(2),
    defaults={
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
    },
)
