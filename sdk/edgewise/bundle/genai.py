"""sdk, bundle: genai_config.json, with which onnxruntime-genai runs a bundle as it is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.bundle.manifest import Manifest, Provider
from edgewise.errors import BundleError
from edgewise.facts import Facts

FILE_NAME = "genai_config.json"
NONE: Mapping[str, str] = {}

# What the generation config may set, with the values that transformers takes where it does not.
SEARCH = {"do_sample": False, "repetition_penalty": 1.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0}


# What onnxruntime-genai calls execution providers; it begins with the processor.
PROVIDERS = {
    "CUDAExecutionProvider": "cuda",
    "DmlExecutionProvider": "dml",
    "NvTensorRTRTXExecutionProvider": "NvTensorRtRtx",
    "WebGpuExecutionProvider": "webgpu",
}


def genai_config(
    facts: Facts,
    *,
    graph: str,
    context: int,
    shared: bool,
    generation: Mapping[str, Any],
    providers: Sequence[Provider] = (),
    session: Mapping[str, str] = NONE,
    positions: bool = False,
) -> dict[str, Any]:
    """The content of genai_config.json for one decoder graph, a path in the bundle. (Unknown keys are fatal to genai.)

    A generation is limited to `context` tokens: onnxruntime-genai allocates keys and values for its limit up front,
    which for the full context of a model can be gigabytes. Its caller may set another limit. `positions`: whether the
    graph reads them.
    """
    first = facts.attention[0]
    decoder = {
        "filename": graph,
        "head_size": first.head_dim,
        "hidden_size": facts.hidden_size,
        "num_attention_heads": first.heads,
        "num_hidden_layers": facts.layers,
        "num_key_value_heads": first.kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
            **({"position_ids": "position_ids"} if positions else {}),
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "session_options": {
            "provider_options": [{PROVIDERS[p.name]: dict(p.options)} for p in providers if p.name in PROVIDERS],
            **session,
        },
    }
    tokens = {"eos_token_id": list(facts.eos), "pad_token_id": _pad(facts)}
    if facts.bos is not None:
        tokens["bos_token_id"] = facts.bos
    search = {key: _setting(generation, key, default) for key, default in SEARCH.items()}
    search |= {"max_length": min(context, facts.context_length), "past_present_share_buffer": shared}
    model = {"type": "decoder", "context_length": facts.context_length, "vocab_size": facts.vocab_size, **tokens}
    return {"model": model | {"decoder": decoder}, "search": search}


def is_uniform(facts: Facts) -> bool:
    """Whether one number of heads, one head size and one kind of cache are every layer's, as in genai_config.json."""
    return len({(a.heads, a.kv_heads, a.head_dim, a.cache) for a in facts.attention}) == 1


def runs(facts: Facts) -> bool:
    """Whether onnxruntime-genai can run such a model: a decoder without an encoder, whose layers are alike."""
    return facts.source is None and is_uniform(facts)


def check(folder: Path, manifest: Manifest) -> None:
    """Refuse a genai_config.json that describes another model than the manifest does."""
    if FILE_NAME not in manifest.files:
        return
    path, facts = folder / FILE_NAME, manifest.language_model
    try:
        model = json.loads(path.read_text("utf-8"))["model"]
        stated = {key: model["decoder"][key] for key in ("filename", "num_hidden_layers", "num_key_value_heads")}
        stated |= {key: model[key] for key in ("context_length", "vocab_size")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    expected = {
        "filename": manifest.decoder,
        "num_hidden_layers": facts.layers,
        "num_key_value_heads": facts.attention[0].kv_heads,
        "context_length": facts.context_length,
        "vocab_size": facts.vocab_size,
    }
    for key, value in expected.items():
        if stated[key] != value:
            raise BundleError(f"{path}: {key} is {stated[key]!r}, and {value!r} in the manifest; build it again")


def _pad(facts: Facts) -> int:
    if facts.pad is not None:
        return facts.pad
    return facts.eos[0] if facts.eos else 0


def _setting(generation: Mapping[str, Any], key: str, default: float | bool) -> float | bool:
    value = generation.get(key)
    kind = bool if isinstance(default, bool) else int | float
    return value if isinstance(value, kind) else default
