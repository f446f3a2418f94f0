"""A llama or qwen2 checkpoint as a GGUF file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

    python gguf_model.py CHECKPOINT_FOLDER WEIGHTS.npz MODEL.gguf

Matrices are written in the type that they have in the npz file (float32 or float16), vectors in float32.

Runs in the peer's own environment; imports nothing of edgewise.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def renamed(name: str) -> str:
    if name in OUTSIDE:
        return OUTSIDE[name]
    layer, _, role = name.removeprefix("model.layers.").partition(".")
    role, _, kind = role.rpartition(".")
    return f"blk.{layer}.{LAYER[role]}.{kind}"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head, halves turned into pairs: llama.cpp rotates neighbours in a llama, the checkpoint halves."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write(checkpoint: Path, weights: Path, output: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(str(output), config["model_type"])
    _add_sizes(writer, config)
    _add_tokenizer(writer, json.loads((checkpoint / "tokenizer.json").read_text()), config)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    paired = heads if config["model_type"] == "llama" else {}
    with np.load(weights) as arrays:
        for name in arrays.files:
            role, weight = name.split(".")[-2], arrays[name]
            if role in paired:
                weight = interleaved(weight, heads[role])
            writer.add_tensor(renamed(name), np.ascontiguousarray(weight, np.float32 if weight.ndim == 1 else None))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: Any, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_parameters", config)["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: Any, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    """As much as llama.cpp wants of one before it loads a model: tokens are given by number here."""
    ids = tokenizer["model"]["vocab"] | {added["content"]: added["id"] for added in tokenizer["added_tokens"]}
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    names = {token: name for name, token in ids.items()}  # a random checkpoint has more tokens than its tokenizer
    writer.add_token_list([names.get(token, f"[{token}]") for token in range(config["vocab_size"])])
    writer.add_token_types([gguf.TokenType.NORMAL] * config["vocab_size"])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])


def main() -> None:
    checkpoint, weights, output = map(Path, sys.argv[1:])
    write(checkpoint, weights, output)


if __name__ == "__main__":
    main()
