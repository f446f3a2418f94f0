"""exporters, decoder, families: Gemma 3, text (arXiv 2503.19786): five windowed layers, with their own rotary
embedding, to a full one; a norm on each head of queries and keys."""

from edgewise_exporters.decoder.family import QK_NORMS, SANDWICH_NORMS, Family
from edgewise_exporters.decoder.layers import every_nth_is_full

FAMILY = Family(
    "gemma3_text",
    norms={**SANDWICH_NORMS, **QK_NORMS},
    norm_offset=1.0,
    qk_norm="head",
    attention_bias="configured",
    activation_key="hidden_activation",
    scale_key="query_pre_attn_scalar",
    logits_softcap_key="final_logit_softcapping",
    scaled_embedding=True,
    layer_types=every_nth_is_full(6, key="sliding_window_pattern"),
    rotary={"global": ("rope_theta", 1_000_000.0), "local": ("rope_local_base_freq", 10_000.0)},
    defaults={
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
    },
    unused=frozenset({"_sliding_window_pattern"}),
)
