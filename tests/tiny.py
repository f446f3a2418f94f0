"""tests: tiny random checkpoints of every family, written by transformers, with attention that looks at few keys."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers

transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]

VOCABULARY = 160

# Values that no family has by default, so that a key which is not read shows.
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 3e-4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 3000.0},
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

PEAK = 1.6  # of queries and of keys: a query then gives about half of its attention to one key

WINDOWED = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 24, "sliding_window": 8, "final_logit_softcapping": 5.0}

SPARSE = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 32}

SIGMOIDS = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 1.8,
    "norm_topk_prob": True,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "dots1": {**SIGMOIDS, "head_dim": 32, "sliding_window": 8, "max_window_layers": 2},
    "flex_olmo": {"num_experts": 6, "num_experts_per_tok": 3, "intermediate_size": 32},
    "gemma2": {**GEMMA, "attn_logit_softcapping": 4.0, "tie_word_embeddings": True},
    "gemma3_text": {
        **GEMMA,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 30_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
        "tie_word_embeddings": True,
    },
    "glm4_moe": {
        **SIGMOIDS,
        "head_dim": 32,
        "use_qk_norm": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 3000.0, "partial_rotary_factor": 0.5},
    },
    "gpt_oss": {
        "num_local_experts": 6,
        "num_experts_per_tok": 3,
        "intermediate_size": 32,
        "head_dim": 32,
        "sliding_window": 8,
        "swiglu_alpha": 1.3,
        "swiglu_limit": 1.2,
    },
    "llama": {"head_dim": 32},
    "mistral": {"head_dim": 32, "sliding_window": 8},
    "mixtral": {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 64},
    "olmo2": {},
    "olmoe": {"num_experts": 6, "num_experts_per_tok": 3, "intermediate_size": 32},
    "phi3": {"num_attention_heads": 2, "num_key_value_heads": 1, "original_max_position_embeddings": 256},
    "qwen2": WINDOWED,
    "qwen2_moe": {**SPARSE, "shared_expert_intermediate_size": 48},
    "qwen3_moe": {**SPARSE, "head_dim": 32, "norm_topk_prob": True},
    "qwen3": {**WINDOWED, "head_dim": 32, "max_window_layers": 1},
    "smollm3": {"no_rope_layer_interval": 2, "tie_word_embeddings": True},
}


def checkpoint(family: str, folder: Path, *, dtype: torch.dtype = torch.float32, **overrides: Any) -> Path:
    """A checkpoint of that family under `folder`; the same one each time. `overrides` are keys of its configuration."""
    values = deepcopy({**COMMON, **FAMILIES.get(family, {}), **overrides})  # transformers writes into what it is given
    config = transformers.AutoConfig.for_model(family, **values)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in (*model.named_parameters(), *_corrections(model)):
            weight.copy_(_random(name, weight, generator))
    model.to(dtype).save_pretrained(folder)
    return folder


def _corrections(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Weights that transformers calls buffers."""
    return [(name, weight) for name, weight in model.named_buffers() if name.endswith("e_score_correction_bias")]


def _random(name: str, weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Activations near 1 everywhere; queries and keys larger, so that attention is peaked."""
    noise: torch.Tensor = torch.randn(weight.shape, generator=generator)
    if "norm" in name:  # transformers starts it where it scales by 1
        return weight + 0.2 * noise + (PEAK - 1 if "q_norm" in name or "k_norm" in name else 0)
    if name.endswith("bias"):
        return 0.5 * noise
    if "embed_tokens" in name or name.endswith("sinks"):
        return noise
    scale = PEAK if any(part in name for part in ("q_proj", "k_proj", "qkv_proj")) else 1.0
    scaled: torch.Tensor = noise * scale / weight.shape[-1] ** 0.5
    return scaled
