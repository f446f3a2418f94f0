"""exporters, decoder: the way back: the configuration of a model whose sizes passes have changed."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.errors import GraphError
from edgewise.facts import Facts
from edgewise.graph import Roles, get_facts, linears, role
from edgewise_exporters.decoder.architecture import Architecture
from edgewise_exporters.decoder.layers import FULL, SLIDING
from edgewise_exporters.decoder.mixture import COUNTS
from edgewise_exporters.decoder.sparse import every_nth_layer, later_layers

T = TypeVar("T")

QKV = ("attention.q", "attention.k", "attention.v")
BIASES = {"attention_bias": (*QKV, "attention.o"), "mlp_bias": ("mlp.gate", "mlp.up", "mlp.down")}


def config_of(model: ir.Model, source: Checkpoint, before: Architecture) -> dict[str, Any]:
    """config.json of the model; what passes have not changed is as the checkpoint has it, but for the type of floats.

    Raises GraphError where layers differ in a size that a configuration states once.
    """
    facts = get_facts(model)
    config = {key: value for key, value in source.config.items() if key not in ("quantization_config", "torch_dtype")}
    changed = {
        "dtype": "float32",
        "hidden_size": facts.hidden_size,
        "num_hidden_layers": facts.layers,
        "rms_norm_eps": Roles.of(model).one("norm").attributes.get_float("epsilon", before.norm_epsilon),
        "tie_word_embeddings": facts.tied,
        "vocab_size": facts.vocab_size,
    }
    config |= changed | _heads(facts, before.facts) | _widths(model, before) | _layers(facts, before, config)
    return config | _experts(facts, before, config) | dict.fromkeys(biases(model, before), True)


def biases(model: ir.Model, before: Architecture) -> list[str]:
    """The keys that say that all projections of a kind have a bias, where one of them has."""
    present = {(role(node) or "").removesuffix(".bias") for node in model.graph if (role(node) or "").endswith(".bias")}
    configured = {"attention_bias": before.family.attention_bias, "mlp_bias": before.family.mlp_bias}
    return [key for key, roles in BIASES.items() if configured[key] == "configured" and not present.isdisjoint(roles)]


def _heads(facts: Facts, before: Facts) -> dict[str, int]:
    first = before.attention[0]
    heads = _one("query heads", (a.heads for a in facts.attention))
    found = {"num_attention_heads": heads, "num_key_value_heads": _one("heads", (a.kv_heads for a in facts.attention))}
    if heads != first.heads or facts.hidden_size != before.hidden_size:
        found["head_dim"] = first.head_dim  # which is no longer what follows from the others
    return found


def _widths(model: ir.Model, before: Architecture) -> dict[str, int]:
    """Inner widths of MLPs and experts."""
    keys = {"mlp.down": "intermediate_size"}
    if mixture := before.family.mixture:
        keys["expert.down"] = mixture.size_key
        if mixture.shared and mixture.shared.size_key:
            keys["shared.down"] = mixture.shared.size_key
    sizes: dict[str, set[int]] = {}
    for linear in linears(model):
        if linear.role in keys:
            sizes.setdefault(keys[linear.role], set()).add(linear.matrix.dims[1])
    return {key: _one(key, found) for key, found in sizes.items()}


def _layers(facts: Facts, before: Architecture, config: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What differs from layer to layer, one by one."""
    found: dict[str, list[Any]] = {}
    windows = [a.window for a in before.facts.attention]
    if config.get("layer_types") is not None or len(set(windows)) > 1:
        found["layer_types"] = [FULL if a.window is None else SLIDING for a in facts.attention]
    if before.family.nope_layers:
        found["no_rope_layers"] = [int(a.rotary is not None) for a in facts.attention]
    return found


def _experts(facts: Facts, before: Architecture, config: Mapping[str, Any]) -> dict[str, Any]:
    mixture, present = before.family.mixture, [own for own in facts.experts if own]
    if mixture is None or not present:
        return {}
    key = next((key for key in COUNTS if config.get(key) is not None), mixture.count_key)
    found: dict[str, Any] = {
        key: _one("experts", (own.count for own in present)),
        "num_experts_per_tok": _one("active experts", (own.active for own in present)),
    }
    dense = [number for number, own in enumerate(facts.experts) if own is None]
    if mixture.sparse is every_nth_layer:
        found |= {"decoder_sparse_step": 1, "mlp_only_layers": dense}
    elif mixture.sparse is later_layers:
        found["first_k_dense_replace"] = len(dense)
    return found


def _one(what: str, sizes: Iterable[T]) -> T:
    """The one value that all layers have."""
    found = list(dict.fromkeys(sizes))
    if len(found) > 1:
        said = " and ".join(map(str, found[:2]))
        raise GraphError(f"layers differ in their {what} ({said}), which a checkpoint states once: prune all alike")
    return found[0]
