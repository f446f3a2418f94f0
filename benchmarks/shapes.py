"""Random checkpoints in the shape of public models: what the benchmarks of size and speed run on.

    python benchmarks/shapes.py qwen2.5-0.5b /tmp/checkpoint

Weights are random bf16 (one mebi-element of normal noise, repeated, from another place in each tensor): sizes, types
and layouts are the model's own, the text it produces is not. The tokenizer is the demo checkpoint's.
"""

import argparse
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DEMO = Path(__file__).parent.parent / "examples" / "pycoder"


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder, as its configuration names them."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    rope_theta: float
    qkv_bias: bool = False
    max_position_embeddings: int = 32768
    tied: bool = True
    num_local_experts: int = 0
    num_experts_per_tok: int = 0


SHAPES = {
    "smollm2-135m": Shape("llama", 576, 30, 9, 3, 64, 1536, 49_152, 1e5, max_position_embeddings=8192),
    "qwen2.5-0.5b": Shape("qwen2", 896, 24, 14, 2, 64, 4864, 151_936, 1e6, qkv_bias=True),
    "llama-3.2-1b": Shape("llama", 2048, 16, 32, 8, 64, 8192, 128_256, 5e5, max_position_embeddings=131_072),
    "llama-3.1-8b": Shape("llama", 4096, 32, 32, 8, 128, 14_336, 128_256, 5e5, False, 131_072, tied=False),
    "experts-4-of-16": Shape(  # two layers of no model in particular
        "mixtral", 1024, 2, 16, 4, 64, 1408, 4096, 1e6, False, 8192, num_local_experts=16, num_experts_per_tok=4
    ),
}


def parameters(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the checkpoint."""
    hidden = shape.hidden_size
    query, key = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab_size, hidden)}
    for i in range(shape.num_hidden_layers):
        layer = f"model.layers.{i}"
        tensors[f"{layer}.input_layernorm.weight"] = (hidden,)
        for name, width in (("q", query), ("k", key), ("v", key)):
            tensors[f"{layer}.self_attn.{name}_proj.weight"] = (width, hidden)
            if shape.qkv_bias:
                tensors[f"{layer}.self_attn.{name}_proj.bias"] = (width,)
        tensors[f"{layer}.self_attn.o_proj.weight"] = (hidden, query)
        tensors[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
        tensors |= {f"{layer}.{name}.weight": dims for name, dims in _mlp(shape).items()}
    tensors["model.norm.weight"] = (hidden,)
    if not shape.tied:
        tensors["lm_head.weight"] = (shape.vocab_size, hidden)
    return tensors


def _mlp(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The matrices of an MLP, or of a mixture of experts."""
    wide, back = (shape.intermediate_size, shape.hidden_size), (shape.hidden_size, shape.intermediate_size)
    if not shape.num_local_experts:
        return {"mlp.gate_proj": wide, "mlp.up_proj": wide, "mlp.down_proj": back}
    found: dict[str, tuple[int, ...]] = {"block_sparse_moe.gate": (shape.num_local_experts, shape.hidden_size)}
    for number in range(shape.num_local_experts):
        expert = f"block_sparse_moe.experts.{number}"
        found |= {f"{expert}.w1": wide, f"{expert}.w3": wide, f"{expert}.w2": back}
    return found


def config(shape: Shape) -> dict[str, Any]:
    """A config.json as the hub has them."""
    architectures = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM", "mixtral": "MixtralForCausalLM"}
    settings: dict[str, Any] = {
        "architectures": [architectures[shape.model_type]],
        "model_type": shape.model_type,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"):
        settings[name] = getattr(shape, name)
    for name in ("intermediate_size", "vocab_size", "rope_theta", "max_position_embeddings"):
        settings[name] = getattr(shape, name)
    if shape.num_local_experts:
        settings |= {name: getattr(shape, name) for name in ("num_local_experts", "num_experts_per_tok")}
    return settings


def write_checkpoint(shape: Shape, folder: Path) -> Path:
    """Write the checkpoint unless it is there; returns the folder."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    noise = (np.random.default_rng(0).standard_normal(1 << 20, np.float32) * 0.02).astype(ml_dtypes.bfloat16)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(_header(shape))
        for index, (name, dims) in enumerate(parameters(shape).items()):
            # Each tensor begins elsewhere in the noise: ONNX Runtime keeps equal weights once, and they would fit in a
            # cache, as no real model does.
            _write_tensor(file, np.roll(noise, 8191 * index), int(np.prod(dims)), ones="norm" in name)
    _write_rest(shape, folder)
    return folder


def hollow(shape: Shape, folder: Path) -> Path:
    """A checkpoint whose weights are a hole in a file, which takes no room on the disk: for what reads none of them."""
    header = _header(shape)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(2 * int(np.prod(dims)) for dims in parameters(shape).values()))
    _write_rest(shape, folder)
    return folder


def _header(shape: Shape) -> bytes:
    """What a safetensors file begins with."""
    header: dict[str, Any] = {}
    offset = 0
    for name, dims in parameters(shape).items():
        size = 2 * int(np.prod(dims))
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_rest(shape: Shape, folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, folder / name)
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))


def _write_tensor(file: Any, noise: np.ndarray, elements: int, *, ones: bool) -> None:
    if ones:
        file.write(np.ones(elements, ml_dtypes.bfloat16).tobytes())
        return
    whole, rest = divmod(elements, len(noise))
    for _ in range(whole):
        file.write(noise.tobytes())
    file.write(noise[:rest].tobytes())


def shaped(name: str, *, layers: int | None = None) -> Shape:
    """A shape by name, with another number of layers where asked."""
    shape = SHAPES[name]
    return shape if layers is None else replace(shape, num_hidden_layers=layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int)
    options = parser.parse_args()
    print(write_checkpoint(shaped(options.shape, layers=options.layers), options.folder))


if __name__ == "__main__":
    main()
