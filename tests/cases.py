"""tests: the checkpoints that every dialect of a graph is compared with transformers on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONTEXT = 256  # `max_position_embeddings` of the tiny checkpoints


@dataclass(frozen=True)
class Case:
    """A checkpoint, and the length and context that it is tried at."""

    family: str
    what: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    length: int = 40
    context: int = CONTEXT  # of the session that the logits are compared in
    decode_context: int = CONTEXT  # of the session that greedy tokens are compared in


def _rope(kind: str, **numbers: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 3000.0, **numbers}}


LONGROPE = _rope(
    "longrope",
    partial_rotary_factor=0.5,
    short_factor=[1.0 + 0.05 * i for i in range(8)],
    long_factor=[1.0 + 0.6 * i for i in range(8)],
    original_max_position_embeddings=96,
)
PHI3_LONG = {**LONGROPE, "original_max_position_embeddings": 96}
DYNAMIC = {**_rope("dynamic", factor=3.0), "max_position_embeddings": 96}

CASES = {
    "dots1": Case("dots1", "experts of the best groups, by sigmoids and corrections; upper layers slide"),
    "flex_olmo": Case("flex_olmo", "experts between norms after the blocks"),
    "gemma2": Case("gemma2", "alternating windows, capped scores and logits"),
    "gemma2 uncapped": Case(
        "gemma2", "no caps", {"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": True}
    ),
    "gemma3": Case("gemma3_text", "local and global rotary embeddings"),
    "gemma3 linear": Case(
        "gemma3_text",
        "linear scaling of the global rotary embedding",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 30_000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            },
            "final_logit_softcapping": None,
        },
        length=120,
    ),
    "glm4_moe": Case("glm4_moe", "experts of the best groups, by sigmoids and corrections; shared ones, a dense layer"),
    "glm4_moe plain": Case(
        "glm4_moe",
        "all experts in one group, gates as they are, no norms of heads, biases",
        {"n_group": 1, "topk_group": 1, "norm_topk_prob": False, "use_qk_norm": False, "attention_bias": True}
        | {"first_k_dense_replace": 0, "n_shared_experts": 1, "routed_scaling_factor": 1.0},
    ),
    "gpt_oss": Case("gpt_oss", "clamped experts, sinks, alternating windows"),
    "gpt_oss yarn": Case(
        "gpt_oss",
        "rope yarn; no window, a limit that nothing reaches, no biases of the attention",
        {"swiglu_limit": 100.0, "swiglu_alpha": 1.702, "attention_bias": False, "layer_types": ["full_attention"] * 4}
        | _rope("yarn", factor=4.0, original_max_position_embeddings=32, truncate=False),
        length=120,
    ),
    "llama": Case("llama", "grouped queries"),
    "llama tied": Case("llama", "tied embedding", {"tie_word_embeddings": True, "head_dim": None}),
    "llama biased": Case("llama", "biases, gelu", {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "llama linear": Case("llama", "rope linear", _rope("linear", factor=4.0), length=120),
    "llama dynamic": Case("llama", "rope dynamic", DYNAMIC, length=120, context=120, decode_context=96),
    "llama dynamic short": Case(
        "llama", "rope dynamic, within the original context", DYNAMIC, context=96, decode_context=96
    ),
    "llama llama3": Case(
        "llama",
        "rope llama3",
        _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
        length=120,
    ),
    "llama yarn": Case(
        "llama", "rope yarn", _rope("yarn", factor=4.0, original_max_position_embeddings=32), length=120
    ),
    "llama yarn explicit": Case(
        "llama",
        "rope yarn with all its numbers",
        _rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=32,
            beta_fast=16.0,
            beta_slow=2.0,
            mscale=1.0,
            mscale_all_dim=0.7,
            truncate=False,
        ),
        length=120,
    ),
    "mistral": Case("mistral", "a window over every layer"),
    "mistral full": Case("mistral", "no window", {"sliding_window": None}),
    "mixtral": Case("mixtral", "top 2 of 5 experts"),
    "mixtral window": Case("mixtral", "a window over every layer", {"sliding_window": 8}),
    "olmo2": Case("olmo2", "norms after the blocks, and over whole queries and keys"),
    "olmoe": Case("olmoe", "top 3 of 6 experts by their probabilities"),
    "olmoe normalized": Case(
        "olmoe", "gates that add up to 1, biases", {"norm_topk_prob": True, "attention_bias": True}
    ),
    "phi3": Case("phi3", "fused projections"),
    "phi3 window": Case("phi3", "a window over every layer", {"sliding_window": 8, "tie_word_embeddings": True}),
    "phi3 longrope": Case(
        "phi3", "rope longrope, partial, long factors", PHI3_LONG, length=120, context=120, decode_context=96
    ),
    "phi3 longrope short": Case(
        "phi3", "rope longrope, partial, short factors", PHI3_LONG, context=96, decode_context=96
    ),
    "qwen2": Case("qwen2", "biased q, k, v; upper layers slide"),
    "qwen2 full": Case("qwen2", "no window", {"use_sliding_window": False, "tie_word_embeddings": True}),
    "qwen2 listed": Case(
        "qwen2",
        "windows by layer_types",
        {"layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]},
    ),
    "qwen2_moe": Case("qwen2_moe", "a shared expert"),
    "qwen2_moe window": Case(
        "qwen2_moe",
        "lower layers slide in turns, no biases, gates that add up to 1",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3, "qkv_bias": False}
        | {"norm_topk_prob": True},
    ),
    "qwen3": Case("qwen3", "norms of query and key heads"),
    "qwen3 yarn": Case(
        "qwen3",
        "rope yarn",
        {**_rope("yarn", factor=4.0, original_max_position_embeddings=32), "attention_bias": True},
        length=120,
    ),
    "qwen3_moe": Case("qwen3_moe", "gates that add up to 1"),
    "qwen3_moe mixed": Case(
        "qwen3_moe",
        "dense layers between, probabilities as gates, a window over every layer",
        {"decoder_sparse_step": 2, "mlp_only_layers": [3], "norm_topk_prob": False, "use_sliding_window": True}
        | {"sliding_window": 8, "num_hidden_layers": 5},
    ),
    "smollm3": Case("smollm3", "layers without a position embedding"),
    "smollm3 window": Case(
        "smollm3",
        "layers without a position embedding slide",
        {"use_sliding_window": True, "sliding_window": 8, "no_rope_layers": [1, 1, 0, 1], "mlp_bias": True},
    ),
}
