"""exporters, decoder: mixtures of experts: where a family keeps them, and what a configuration says of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgewise.facts import Experts
from edgewise_exporters.decoder.config import Config

# Keys that only training reads.
TRAINING = frozenset({"output_router_logits", "router_aux_loss_coef", "router_jitter_noise"})
COUNTS = ("num_experts", "num_local_experts")  # spellings of one key

MODULES = {"expert.gate": "gate_proj", "expert.up": "up_proj", "expert.down": "down_proj"}


@dataclass(frozen=True)
class Mixture:
    """Where a family's mixtures differ from those of OLMoE (arXiv 2409.02060), which are the defaults."""

    router: str = "mlp.gate"
    experts: str = "mlp.experts"  # their numbers follow, and then:
    modules: Mapping[str, str] = field(default_factory=lambda: MODULES)
    size_key: str = "intermediate_size"  # of one expert
    normalized: Literal["always", "configured"] = "configured"
    some_layers: bool = False  # `decoder_sparse_step` and `mlp_only_layers` say which layers have one
    shared: bool = False  # an expert more, `mlp.shared_expert`, for every token, with a gate of its own


def read_experts(config: Config, mixture: Mixture, layers: int) -> tuple[Experts | None, ...]:
    """The mixture of each layer; None for a layer with a dense MLP."""
    key = next((key for key in COUNTS if config.get(key) is not None), COUNTS[0])
    count = config.integer(key, most=100_000)
    for other in COUNTS:
        config.must_be(other, count)
    active = config.integer("num_experts_per_tok", most=count)
    normalized = mixture.normalized == "always" or config.flag("norm_topk_prob", False)
    experts = Experts(count, active, normalized)
    step, dense = (config.integer("decoder_sparse_step", 1), _dense(config)) if mixture.some_layers else (1, [])
    found = tuple(None if (layer + 1) % step or layer in dense else experts for layer in range(layers))
    return found if any(found) else ()


def read_shared(config: Config, mixture: Mixture) -> int:
    """The width of the expert that every token is given to; 0: there is none."""
    return config.integer("shared_expert_intermediate_size") if mixture.shared else 0


def _dense(config: Config) -> list[Any]:
    layers = config.get("mlp_only_layers")
    if layers is None:
        return []
    if not isinstance(layers, list) or any(type(layer) is not int or layer < 0 for layer in layers):
        raise config.error("mlp_only_layers", "a list of layers, whole numbers from 0")
    return layers
