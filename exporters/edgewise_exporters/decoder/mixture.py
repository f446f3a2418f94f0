"""exporters, decoder: mixtures of experts: where a family keeps them, and what a configuration says of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgewise.facts import Experts
from edgewise_exporters.decoder.config import Config
from edgewise_exporters.decoder.sparse import SparseLayers, every_layer, later_layers

# Keys that only training reads.
TRAINING = frozenset({"output_router_logits", "router_aux_loss_coef", "router_jitter_noise"})
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")  # spellings of one key

MODULES = {"expert.gate": "gate_proj", "expert.up": "up_proj", "expert.down": "down_proj"}


@dataclass(frozen=True)
class SharedExpert:
    """An expert more, for every token."""

    module: str = "mlp.shared_experts"
    gate: str | None = None  # the module whose sigmoid weights what it gives; None: it is added as it is
    size_key: str | None = None  # None: `n_shared_experts` times the width of the others


@dataclass(frozen=True)
class Mixture:
    """Where a family's mixtures differ from those of OLMoE (arXiv 2409.02060), which are the defaults."""

    router: str = "mlp.gate"
    router_bias: bool = False
    experts: str = "mlp.experts"  # their numbers follow, and then:
    modules: Mapping[str, str] = field(default_factory=lambda: MODULES)
    stacks: Literal["rows", "columns"] = "rows"  # as they are stored together: see `stacks.py`
    size_key: str = "intermediate_size"  # of one expert
    count_key: str = "num_experts"  # what the key is called, where it is absent
    normalized: Literal["always", "configured"] = "configured"
    scores: Literal["softmax", "sigmoid"] = "softmax"
    correction: str | None = None  # the tensor with a number for each expert that is added to choose, not to weight
    grouped: bool = False  # `n_group` and `topk_group` limit the choice, `routed_scaling_factor` scales the gates
    sparse: SparseLayers = every_layer
    shared: SharedExpert | None = None
    clamped: bool = False  # the gated unit of gpt-oss: see `gated.py`


# That of DeepSeek-V3 (arXiv 2412.19437), which others have taken over.
SIGMOID = Mixture(
    size_key="moe_intermediate_size",
    count_key="n_routed_experts",
    scores="sigmoid",
    correction="mlp.gate.e_score_correction_bias",
    grouped=True,
    sparse=later_layers,
    shared=SharedExpert(),
)


def read_experts(config: Config, mixture: Mixture, layers: int) -> tuple[Experts | None, ...]:
    """The mixture of each layer; None for a layer with a dense MLP."""
    key = next((key for key in COUNTS if config.get(key) is not None), mixture.count_key)
    count = config.integer(key, most=100_000)
    for other in COUNTS:
        config.must_be(other, count)
    active = config.integer("num_experts_per_tok", most=count)
    config.must_be("experts_per_token", active)
    groups, active_groups = _groups(config, count, active) if mixture.grouped else (1, 1)
    experts = Experts(
        count=count,
        active=active,
        normalized=mixture.normalized == "always" or config.flag("norm_topk_prob", False),
        scores=mixture.scores,
        corrected=mixture.correction is not None,
        groups=groups,
        active_groups=active_groups,
        scale=config.number("routed_scaling_factor", 1.0) if mixture.grouped else 1.0,
    )
    found = tuple(experts if sparse else None for sparse in mixture.sparse(config, layers))
    return found if any(found) else ()


def read_shared(config: Config, mixture: Mixture) -> int:
    """The width of the expert that every token is given to; 0: there is none."""
    if mixture.shared is None:
        return 0
    if mixture.shared.size_key is not None:
        return config.integer(mixture.shared.size_key)
    if config.get("n_shared_experts") is None:
        return 0
    return config.integer("n_shared_experts", least=0) * config.integer(mixture.size_key)


def _groups(config: Config, count: int, active: int) -> tuple[int, int]:
    """Groups that experts are chosen among, and how many of them; one where all experts are."""
    config.choice("topk_method", ["noaux_tc"], "noaux_tc")
    config.choice("scoring_func", ["sigmoid", "noaux_tc"], "sigmoid")
    groups = config.integer("n_group", 1, most=count)
    if groups > 1 and (count % groups or count // groups < 2):
        raise config.error("n_group", f"a divisor of {count} experts, at most half of them")
    chosen = config.integer("topk_group", 1, most=groups)
    if active > chosen * (count // groups):
        raise config.error("topk_group", f"groups of {count // groups} that together have {active} experts")
    return (groups, chosen) if chosen < groups else (1, 1)
